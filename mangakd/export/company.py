"""Whether a text's answer depends on its own text alone, seen by asking the same texts alone and in batches of mixed lengths.

Dynamic INT8 scales activations over the whole batch, so its answers depend on the company. Kernels that differ between one row
and many round differently, which is no dependence: a static INT8 activation may fall on the other side of a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.export.difference import largest_difference
from mangakd.runtime.answers import sigmoid, softmax

TEXTS = 512  # asked both ways
ROUNDING = 1e-3  # of the largest output


@dataclass(frozen=True)
class Company:
    """texts: how many were asked both ways. output: largest |Δ output|. probability: largest |Δp|, None where there is none.

    independent: whether `output` is no more than rounding, ROUNDING · max |output|.
    """

    texts: int
    output: float
    probability: float | None
    independent: bool

    def metrics(self) -> Mapping[str, Any]:
        return {
            "independent": self.independent, "texts": self.texts, "max_difference": self.output,
            "max_probability_difference": self.probability,
        }  # fmt: skip


def compare(alone: np.ndarray, together: np.ndarray, problem: str) -> Company:
    """alone, together: (N, C) or (N, D) of the same texts."""
    probabilities = {"single_label": softmax, "multi_label": sigmoid}.get(problem)
    output = largest_difference(alone, together)
    return Company(
        len(alone), output,
        None if probabilities is None else largest_difference(probabilities(alone), probabilities(together)),
        output <= ROUNDING * float(np.abs(alone).max(initial=0.0)),
    )  # fmt: skip
