"""Pair score: the cosine of two texts becomes the score that people gave to the pair.

Formula, with the cosine s_i of anchor and positive of row i and its score y_i in [0, 1]:

    sum = Σ_i (s_i − y_i)²          count = rows with a score

With `dims` each prefix of the student learns. Runs without a teacher.

Shapes: score and cosine (B, ) of a row, NaN where it has none; vectors (S, D); first (B + 1), the first two sequences of a row
are the pair. B rows, S sequences, D dimensions.

Source: Reimers and Gurevych 2019 (Sentence-BERT, arXiv:1908.10084); prefixes: Kusupati et al. 2022 (arXiv:2205.13147).

Deviations: none.
"""

from typing import ClassVar

from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.losses.base import LossOutput
from mangakd.losses.prefixes import PrefixLoss, prefix


class PairScoreLoss(PrefixLoss):
    """Squared error of the cosine of two texts.

    dims: prefixes that learn, or null for the whole vector.

    Raises UserError in `bind`: a head that is no vector, an option outside its range; in `forward`: a batch without pairs.
    """

    citation: ClassVar[str] = "Sentence-BERT: Reimers and Gurevych 2019, arXiv:1908.10084"
    needs_teacher: ClassVar[bool] = False
    unit = "labels"

    def at(self, size: int, student: Tensor, teacher: Tensor | None, batch: Batch) -> LossOutput:
        if "first" not in batch:
            raise UserError(
                f"losses.{self.name} needs rows of two texts and their score, and each row of the batch is one text: set "
                f"data.columns.positive and data.columns.score, or leave losses.{self.name} out."
            )
        first, score = batch["first"], batch["score"].float()
        valid = score.isfinite()
        one, other = first[:-1], (first[:-1] + 1).masked_fill(~valid, 0)
        # Replaced before the arithmetic: 0 · NaN would reach the gradient of what has no score.
        vectors = [prefix(student[places].masked_fill(~valid[:, None], 0.0), size) for places in (one, other)]
        error = ((vectors[0] * vectors[1]).sum(1) - score).masked_fill(~valid, 0.0)
        return LossOutput(error.square().sum(), valid.sum())
