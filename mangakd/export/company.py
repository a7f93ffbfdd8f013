"""Whether a text's answer depends on its own text alone.

Dynamic INT8 scales activations over the whole batch, so its answers depend on the company. A batch of another shape also runs
through other kernels, which round otherwise; a static INT8 activation may then fall on the other side of a step. So two things
are measured: how far other texts in a batch of the same shape move an answer, and how far answers alone are from those in batches
of mixed lengths.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.core.numbers import largest_difference
from mangakd.core.spec import Head
from mangakd.runtime.answers import sigmoid, softmax

TEXTS = 512  # asked both ways
SAME, ROUNDING = 1e-5, 1e-2  # of the largest output: what other texts, and what other shapes may move an answer by


@dataclass(frozen=True)
class Company:
    """texts: how many were asked both ways. moved: largest |Δ output| by other texts in a batch of the same shape.

    output: largest |Δ output| alone and in batches. probability: largest |Δp|, None where there is none. independent: whether
    `moved` is no more than SAME · max |output|, and `output` than ROUNDING · max |output|.
    """

    texts: int
    moved: float
    output: float
    probability: float | None
    independent: bool

    def metrics(self) -> Mapping[str, Any]:
        return {
            "independent": self.independent, "texts": self.texts, "moved": self.moved, "max_difference": self.output,
            "max_probability_difference": self.probability,
        }  # fmt: skip


def compare(alone: np.ndarray, together: np.ndarray, moved: float, head: Head) -> Company:
    """alone, together: (N, C) or (N, D) of the same texts."""
    probabilities = (sigmoid if head.several else softmax) if head.kind == "labels" else None
    output, largest = largest_difference(alone, together), float(np.abs(alone).max(initial=0.0))
    return Company(
        len(alone), moved, output,
        None if probabilities is None else largest_difference(probabilities(alone), probabilities(together)),
        bool(moved <= SAME * largest and output <= ROUNDING * largest),
    )  # fmt: skip
