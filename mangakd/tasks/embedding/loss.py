"""What a baseline and a fine-tuned teacher learn from: positives by contrast, scores by the cosine of their pair."""

from collections.abc import Sequence
from typing import ClassVar

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Fits
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossCallback, LossOutput
from mangakd.losses.contrastive import ContrastiveLoss
from mangakd.losses.pair_score import PairScoreLoss


class LabelsLoss(LossCallback):
    """`contrastive` on rows with a positive, `pair_score` on rows with a score. dims: prefixes that learn."""

    citation: ClassVar[str] = ContrastiveLoss.citation
    needs_teacher: ClassVar[bool] = False
    additive: ClassVar[bool] = False
    gathers: ClassVar[tuple[str, ...] | None] = ("key", "labels", "score")
    unit = "labels"

    def __init__(self, *, weight: Schedule = 1.0, dims: Sequence[int] | None = None) -> None:
        super().__init__(weight=weight)
        self.dims = dims
        self._parts = (ContrastiveLoss(dims=dims), PairScoreLoss(dims=dims))

    @property
    def fits(self) -> Fits:
        return Fits(("vector",))

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        for part in self._parts:
            part.name = self.name
            part.bind(student, None)
        self.requires = self._parts[0].requires

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Vectors (S, D) → the sum over rows with a positive or a score."""
        parts = [part(student, None, batch) for part in self._parts]
        return LossOutput(parts[0].sum + parts[1].sum, parts[0].count + parts[1].count)
