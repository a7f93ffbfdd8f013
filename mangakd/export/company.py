"""Measures whether a text's answer depends on the other texts of its batch.

Dynamic INT8 scales activations over the whole batch, so its answers depend on the other texts. A batch of another shape also
uses other kernels, which round differently; a static INT8 activation may then round to another step. So there are two
measurements: how far other texts in a batch of the same shape shift an answer, and how far the answers in batches of mixed
lengths are from the answers to single texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.core.numbers import largest_difference
from mangakd.core.spec import Head
from mangakd.runtime.answers import sigmoid, softmax

TEXTS, WRITTEN = 512, 128  # measured alone and in batches; of students that write
SAME, ROUNDING = 1e-5, 1e-2  # largest shift by other texts and by other shapes, in shares of the largest output


@dataclass(frozen=True)
class Company:
    """texts: their number. shift: largest |Δ output| that other texts cause in a batch of the same shape.

    output: largest |Δ output| between a text alone and in batches. probability: largest |Δp|, None without probabilities.
    independent: shift ≤ SAME · max |output| and output ≤ ROUNDING · max |output|. Of a student that writes, shift is of the
    logits of the first token, and output the share of texts that are others in batches, which must be 0.
    """

    texts: int
    shift: float
    output: float
    probability: float | None
    independent: bool

    def metrics(self) -> Mapping[str, Any]:
        return {
            "independent": self.independent, "texts": self.texts, "moved": self.shift, "max_difference": self.output,
            "max_probability_difference": self.probability,
        }  # fmt: skip


def compare(alone: np.ndarray, together: np.ndarray, shift: float, head: Head, size: float | None = None) -> Company:
    """alone, together: (N, C) or (N, D), outputs for the same texts. shift: see `Company`. size: of the outputs that shift."""
    if head.kind == "tokens":
        others = float((alone != together).any(1).mean()) if len(alone) else 0.0
        return Company(len(alone), shift, others, None, bool(shift <= SAME * (size or 0.0) and not others))
    probabilities = (sigmoid if head.several else softmax) if head.kind == "labels" else None
    output, largest = largest_difference(alone, together), float(np.abs(alone).max(initial=0.0))
    return Company(
        len(alone), shift, output,
        None if probabilities is None else largest_difference(probabilities(alone), probabilities(together)),
        bool(shift <= SAME * largest and output <= ROUNDING * largest),
    )  # fmt: skip
