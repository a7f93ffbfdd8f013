"""Hard labels: cross-entropy between the student's logits and the labels of the data. Runs without a teacher.

Formula, with logits z, labels y and smoothing ε:

    single label       sum = Σ_b −log softmax(z_b)[y_b]                                  count = labelled rows
    multi-label        sum = Σ_bc −[y_bc log σ(z_bc) + (1 − y_bc) log(1 − σ(z_bc))]      count = labelled cells
    label_smoothing    y ← (1 − ε) y + ε / C    (multi-label: ε / 2)
    smoothing_aware    sum ← sum / (1 − ε)

Smoothing takes weight from the labels: they keep (1 − ε)(1 − alpha). With `smoothing_aware` the labels keep their whole weight
1 − alpha, and the even share comes on top. This loss has no temperature: Hinton et al. take the hard term at T = 1.

Shapes: logits (B, C); labels (B) int64, or (B, C) float for a multi-label head. B rows, C classes.

Source: Hinton et al. 2015 (arXiv:1503.02531, section 2); label smoothing: Szegedy et al. 2015 (arXiv:1512.00567).

Deviations: rows with the label -100 have no label and count for nothing. `smoothing_aware` is ours.
"""

import logging
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import CLASSES, Fits, Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossCallback, LossOutput

log = logging.getLogger(__name__)
IGNORE = -100
"""A label of -100 is no label (torch's convention): unlabelled text can sit in the same batch."""


class HardLabelLoss(LossCallback):
    """Cross-entropy (single label) or binary cross-entropy (multi-label) with the labels of the data, in nats.

    label_smoothing: ε in [0, 1). smoothing_aware: divide the sum by 1 − ε.

    Raises UserError in `bind` when an option is outside its range, and in `forward` when the shape of the labels does not fit
    the head.
    """

    citation: ClassVar[str] = (
        "Hinton et al. 2015, arXiv:1503.02531; label smoothing: Szegedy et al. 2015, arXiv:1512.00567"
    )
    needs_teacher: ClassVar[bool] = False
    unit = "labels"

    def __init__(self, *, weight: Schedule = 1.0, label_smoothing: float = 0.0, smoothing_aware: bool = False) -> None:
        super().__init__(weight=weight)
        self.label_smoothing = label_smoothing
        self.smoothing_aware = smoothing_aware
        self.several = False

    @property
    def fits(self) -> Fits:
        return CLASSES

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"{self.key('label_smoothing')} must be in [0, 1); found {self.label_smoothing}.")
        self.check_choice("smoothing_aware", (True, False))
        if self.smoothing_aware and self.label_smoothing == 0:
            log.warning("%s is ignored: %s is 0.", self.key("smoothing_aware"), self.key("label_smoothing"))
        self.several = student.head.several
        self.requires = Requires(student=Need(answer=True), labels=True)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Logits (B, C) with labels (B) int64, or (B, C) float for multi-label; -100 is skipped and not counted."""
        logits, labels = student.answer.float(), batch["labels"]
        self._check_shape(logits, labels)
        valid = labels != IGNORE
        # Replaced before the arithmetic: 0 · NaN would reach the gradient of what has no label.
        logits = logits.masked_fill(~valid.view(*valid.shape, *[1] * (logits.dim() - valid.dim())), 0.0)
        total = self._binary(logits, labels, valid) if self.several else self._single(logits, labels)
        return LossOutput(total / (1 - self.label_smoothing) if self.smoothing_aware else total, valid.sum())

    def _single(self, logits: Tensor, labels: Tensor) -> Tensor:
        # With every label ignored, torch's sum is a zero that keeps the graph (its mean would be NaN).
        return F.cross_entropy(
            logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )

    def _binary(self, logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        target = labels.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return each.masked_fill(~valid, 0.0).sum()

    def _check_shape(self, logits: Tensor, labels: Tensor) -> None:
        shape = logits.shape if self.several else logits.shape[:1]
        if labels.shape != shape:
            raise UserError(
                f"losses.{self.name}: a {'multi' if self.several else 'single'}_label model with logits {tuple(logits.shape)} "
                f"needs labels of shape {tuple(shape)}; found {tuple(labels.shape)}. Check the model's problem type and the "
                "labels."
            )
