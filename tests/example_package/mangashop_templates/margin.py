"""A loss of the shop's own: the student shall be as sure of the right answer against the runner-up as the teacher is."""

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import CLASSES, Fits, Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossCallback, LossOutput


class MarginLoss(LossCallback):
    """(m_s − m_t)², where m = the largest logit minus the second largest, at most `most`; mean over the batch.

    most: margins above it are cut on both sides, > 0. Raises UserError in `bind`: no teacher, most ≤ 0.
    """

    citation = "the manga shop"

    def __init__(self, *, weight: Schedule = 1.0, most: float = 5.0) -> None:
        super().__init__(weight=weight)
        self.most = most

    @property
    def fits(self) -> Fits:
        return CLASSES

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        self.teacher_spec(teacher)
        if self.most <= 0:
            raise UserError(f"{self.key('most')}={self.most} must be above 0.")
        self.requires = Requires(Need(answer=True), Need(answer=True))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        assert teacher is not None and student.logits is not None and teacher.logits is not None
        gap = self._margin(student.logits) - self._margin(teacher.logits)
        return LossOutput((gap**2).sum(), torch.tensor(float(len(gap)), device=gap.device))

    def _margin(self, logits: Tensor) -> Tensor:
        """(B, C) → (B,)"""
        first, second = logits.float().topk(2, dim=-1).values.unbind(-1)
        return (first - second).clamp(max=self.most)
