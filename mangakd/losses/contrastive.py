"""Contrastive: a text's vector lies nearer to its positive's than to all other candidates of the batch.

Formula, with the cosines s_ij of anchor i and candidate j, temperature T and the teacher's cosines t_ij:

    hard_i = −log softmax_j(s_ij / T) at the positive of i
    soft_i = Σ_j p_ij log(p_ij / q_ij),  p_i = softmax_j(t_ij / T_t), q_i = softmax_j(s_ij / T)
    sum    = Σ_i (1 − soft) · hard_i + soft · soft_i             count = rows with a positive

Candidates are the positives and the negatives of all rows of the batch. A candidate with the text of the row's own positive,
or of its anchor, is no negative and is left out. With soft > 0 the teacher says how much the candidates resemble the anchor, so
that an unlabelled match among them is not pushed away.
With `dims` each prefix of the student is taught, soft labels being those of the teacher's whole vectors.

Shapes: cosines (B, S) of vectors (S, D); first (B + 1), row i owns the sequences anchor, positive, negatives; labels (B), 1 where
the row has a positive and -100 where not; keys (S). B rows, S sequences, D dimensions.

Source: van den Oord et al. 2018 (arXiv:1807.03748); in-batch negatives: Karpukhin et al. 2020 (arXiv:2004.04906); prefixes:
Kusupati et al. 2022 (arXiv:2205.13147).

Deviations: cosines in place of inner products, and anchors compete for no positive (one direction). Soft labels are ours, as in
the distillation of classifiers; there is no T², as hard and soft part have the same T.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossOutput
from mangakd.losses.prefixes import PrefixLoss, prefix
from mangakd.losses.similarity import log_shares


class ContrastiveLoss(PrefixLoss):
    """Cross-entropy of each row's positive among the candidates of the batch, on all devices, in nats.

    temperature: T > 0. soft: share of the teacher's soft labels, in [0, 1]; 0 needs no teacher. teacher_temperature: T_t > 0, or
    null for T. dims: prefixes that learn, or null for the whole vector.

    Raises UserError in `bind`: soft labels without a teacher, heads that are no vectors, an option outside its range; in
    `forward`: a batch that does not say which sequences are whose.
    """

    citation: ClassVar[str] = (
        "van den Oord et al. 2018, arXiv:1807.03748; in-batch negatives: Karpukhin et al. 2020, arXiv:2004.04906; prefixes: "
        "Kusupati et al. 2022, arXiv:2205.13147"
    )
    additive: ClassVar[bool] = False
    gathers: ClassVar[tuple[str, ...] | None] = ("key", "labels")
    unit = "labels"

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        temperature: float = 0.05,
        soft: float = 0.0,
        teacher_temperature: float | None = None,
        dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__(weight=weight, dims=dims)
        self.temperature = temperature
        self.soft = soft
        self.teacher_temperature = teacher_temperature

    @property
    def needs_teacher(self) -> bool:  # type: ignore[override]
        return self.soft != 0

    def check_options(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        self.positive("temperature")
        if self.teacher_temperature is not None:
            self.positive("teacher_temperature")
        if not isinstance(self.soft, int | float) or not 0 <= self.soft <= 1:
            raise UserError(f"{self.key('soft')}={self.soft} must be in [0, 1].")

    def at(self, size: int, student: Tensor, teacher: Tensor | None, batch: Batch) -> LossOutput:
        rows = _Rows(batch, len(student), self.name)
        ours = rows.cosines(student, size) / self.temperature
        log_q = log_shares(ours, rows.candidates)
        each = (1 - self.soft) * -log_q.gather(1, rows.positives[:, None])[:, 0]
        if teacher is not None:
            theirs = rows.cosines(teacher, teacher.shape[1]) / (self.teacher_temperature or self.temperature)
            log_p = log_shares(theirs, rows.candidates)
            each = each + self.soft * (log_p.exp() * (log_p - log_q)).masked_fill(~rows.candidates, 0.0).sum(1)
        return LossOutput(each.masked_fill(~rows.valid, 0.0).sum(), rows.valid.sum())


class _Rows:
    """Which sequence is what in a batch. Every tensor has a fixed shape, so that no device is asked for a number.

    valid: (B), rows with a positive. positives: (B), their places, 0 in other rows. candidates: (B, S), what a row compares its
    anchor with.
    """

    def __init__(self, batch: Batch, sequences: int, name: str) -> None:
        if "first" not in batch:
            raise UserError(
                f"losses.{name} needs rows of an anchor and a positive, and each row of the batch is one text: give the data a "
                f"column of positives (data.columns.positive), or leave losses.{name} out."
            )
        first, keys = batch["first"], batch["key"]
        self.anchors, places = first[:-1], torch.arange(sequences, device=first.device)
        self.valid = batch["labels"] == 1
        self.positives = (self.anchors + 1).masked_fill(~self.valid, 0)
        owners = torch.searchsorted(first[1:].contiguous(), places, right=True)
        self.learned = self.valid[owners]
        candidate = self.learned & (places != self.anchors[owners])
        alike = (keys == keys[self.positives][:, None]) & (places != self.positives[:, None])
        self.candidates = candidate & ~alike & (keys != keys[self.anchors][:, None])
        own = places == self.positives[:, None]  # a positive that repeats its anchor stays the positive
        self.candidates = (self.candidates | own) & self.valid[:, None]

    def cosines(self, vectors: Tensor, size: int) -> Tensor:
        """(S, D) → (B, S). Vectors of rows without a positive are replaced first: they may be NaN."""
        unit = prefix(vectors.masked_fill(~self.learned[:, None], 0.0), size)
        return unit[self.anchors] @ unit.T
