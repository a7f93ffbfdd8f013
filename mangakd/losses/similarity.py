"""Similarity: the student finds the same texts of a batch similar as the teacher, whatever the widths of their vectors.

Formula, with cosines s_ij of the student's vectors and t_ij of the teacher's, j over the other texts of the batch:

    kl    T² · Σ_j p_ij log(p_ij / q_ij),  p_i = softmax_j(t_ij / T), q_i = softmax_j(s_ij / T)
    mse   1/n_i Σ_j (s_ij − t_ij)²,  n_i other texts
    count = texts that have another one

The diagonal is left out: each text is most similar to itself, which would take nearly all of p. Equal texts are left out for
the same reason. kl looks at the nearest texts, the nearer the lower T is; mse at all of them alike.
With `dims` each prefix of the student learns the similarities of the teacher's whole vectors.

Shapes: cosines (B, B) of a batch of B texts, or (S, S) where rows own several; vectors (S, D_s) and (S, D_t); keys (S), equal for
equal texts. S sequences, D dimensions.

Source: mse: Tung and Mori 2019 (arXiv:1907.09682); kl: Fang et al. 2021 (SEED, arXiv:2101.04731); prefixes: Kusupati et al. 2022
(arXiv:2205.13147).

Deviations: Tung and Mori compare rows of inner products that are scaled to length 1, with the diagonal; here they are cosines.
SEED compares with a queue of earlier texts, here with those of the batch; T² keeps the size of the gradient.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mangakd.core.outputs import Batch
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossOutput
from mangakd.losses.prefixes import PrefixLoss, prefix


class SimilarityLoss(PrefixLoss):
    """Difference of the cosines between a batch's texts, on all devices.

    compare: kl | mse. temperature: T > 0 of kl. dims: prefixes that learn, or null for the whole vector.

    Raises UserError in `bind`: no teacher, heads that are no vectors, an option outside its range.
    """

    citation: ClassVar[str] = (
        "Tung and Mori 2019, arXiv:1907.09682; SEED: Fang et al. 2021, arXiv:2101.04731; prefixes: Kusupati et al. 2022, "
        "arXiv:2205.13147"
    )
    additive: ClassVar[bool] = False
    gathers: ClassVar[tuple[str, ...] | None] = ("key",)
    unit = "sequences"

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        compare: str = "kl",
        temperature: float = 0.1,
        dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__(weight=weight, dims=dims)
        self.compare = compare
        self.temperature = temperature

    def check_options(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        self.check_choice("compare", ("kl", "mse"))
        self.positive("temperature")

    def at(self, size: int, student: Tensor, teacher: Tensor | None, batch: Batch) -> LossOutput:
        assert teacher is not None
        others = different(batch.get("key", torch.arange(len(student), device=student.device)))
        valid = others.any(1)
        ours, theirs = _cosines(prefix(student, size)), _cosines(prefix(teacher, teacher.shape[1]))
        each = self._mse(ours, theirs, others) if self.compare == "mse" else self._kl(ours, theirs, others)
        return LossOutput(each.masked_fill(~valid, 0.0).sum(), valid.sum())

    def _mse(self, ours: Tensor, theirs: Tensor, others: Tensor) -> Tensor:
        return (ours - theirs).square().masked_fill(~others, 0.0).sum(1) / others.sum(1).clamp(min=1)

    def _kl(self, ours: Tensor, theirs: Tensor, others: Tensor) -> Tensor:
        log_p, log_q = (log_shares(side / self.temperature, others) for side in (theirs, ours))
        return self.temperature**2 * (log_p.exp() * (log_p - log_q)).masked_fill(~others, 0.0).sum(1)


def different(keys: Tensor) -> Tensor:
    """(S) → (S, S) bool: whether two texts are different."""
    return keys[:, None] != keys[None, :]


def log_shares(scores: Tensor, allowed: Tensor) -> Tensor:
    """log softmax over the allowed columns; 0 in the others, so that nothing is infinite. A row without any is that of all."""
    columns = allowed | ~allowed.any(1, keepdim=True)
    return torch.log_softmax(scores.masked_fill(~columns, float("-inf")), 1).masked_fill(~columns, 0.0)


def _cosines(vectors: Tensor) -> Tensor:
    return vectors @ vectors.T
