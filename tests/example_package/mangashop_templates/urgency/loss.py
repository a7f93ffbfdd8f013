"""The loss on the labels: squared error, also what the baseline and the fine-tuned teacher learn from."""

from typing import ClassVar

from torch import Tensor

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Fits, Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossCallback, LossOutput


class ScoreLoss(LossCallback):
    """(z − score)², mean over the rows that have a score. Shapes: logits z (B, 1); `batch["score"]` (B), NaN for none."""

    needs_teacher: ClassVar[bool] = False
    unit = "labels"

    def __init__(self, *, weight: Schedule = 1.0) -> None:
        super().__init__(weight=weight)

    @property
    def fits(self) -> Fits:
        return Fits(("score",))

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        self.requires = Requires(Need(answer=True), labels=True)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        score: Tensor = batch["score"]
        known = score.isfinite()
        error = student.logits[:, 0].float() - score.nan_to_num()
        return LossOutput(error.masked_fill(~known, 0.0).square().sum(), known.sum())
