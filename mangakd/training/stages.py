"""`Stage`: one fit of a recipe. A stage starts from the weights of the previous stage.

A recipe is a list of stages (conf/stages). TinyBERT first learns features without labels, then soft targets. Progressive
distillation unfreezes the student from the top. A chain puts an assistant between teacher and student. A stage inherits from
the run every setting that the stage does not set.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mangakd.core.errors import UserError, near
from mangakd.models.encoder import Encoder

TEXTS = ("labelled", "augmented", "unlabelled")
TEACHERS = ("run", "stored", "previous")
KEEPS = (None, "best", "last")
QUANTISES = (None, "int8")


@dataclass(frozen=True)
class Stage:
    """losses: names of the run's losses, or None for all. texts: some of labelled, augmented, unlabelled.

    limit: rows of these texts at most, the same for all seeds; the teacher is fine-tuned on all labelled texts, and the baseline
    learns from as many of them as the stages do.
    epochs, lr: None for the run's. frozen: `embeddings` and layers 1…L that do not learn. patience: the stage ends after this
    number of epochs without a better validation score. keep: best (validation epoch) | last; None: best if the losses read the
    logits, because otherwise the score says nothing. teacher: run | stored (the run's teacher, with logits that are stored on
    disk and read in every epoch) | previous (the model of the previous stage).
    quantise: int8 trains the student with fake quantisers (training/quantise.py); for the last stage only.
    student: entries of conf/student for another model in the stage, such as an assistant; the next stage starts from new weights.
    """

    name: str
    losses: Sequence[str] | None = None
    texts: Sequence[str] = ("labelled",)
    limit: int | None = None
    epochs: int | None = None
    lr: float | None = None
    frozen: Sequence[str | int] = ()
    patience: int | None = None
    keep: str | None = None
    teacher: str = "run"
    quantise: str | None = None
    student: dict[str, Any] | None = field(default=None)

    def __post_init__(self) -> None:
        for key, values in (("teacher", TEACHERS), ("keep", KEEPS), ("quantise", QUANTISES)):
            if getattr(self, key) not in values:
                names = ", ".join(value or "null" for value in values)  # as typed
                raise UserError(f"{self.key(key)}={getattr(self, key)} must be one of {names}.")
        unknown = [name for name in self.texts if name not in TEXTS]
        if unknown or not self.texts:
            hint = near(str(unknown[0]), TEXTS) if unknown else ""
            raise UserError(f"{self.key('texts')}={list(self.texts)} must name some of {', '.join(TEXTS)}{hint}")
        for key in ("epochs", "patience", "limit"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"{self.key(key)}={value} must be a whole number from 1 on, or null.")

    def key(self, option: str) -> str:
        return f"stages.{self.name}.{option}"

    def select(self, losses: dict[str, Any]) -> dict[str, Any]:
        """Select this stage's losses from the run's (name → anything). Raises UserError for an unknown name."""
        if self.losses is None:
            return losses
        missing = [name for name in self.losses if name not in losses]
        if missing:
            raise UserError(
                f"{self.key('losses')} names {missing[0]}, which is no loss of this run{near(missing[0], losses)} "
                f"Choose it among losses=[…], or name the run's losses: {self.key('losses')}=[{','.join(losses)}]."
            )
        return {name: losses[name] for name in self.losses}

    def check_frozen(self, layers: int) -> None:
        """Raises UserError if `frozen` names parts that a student with this number of layers lacks."""
        wrong = [name for name in self.frozen if name != "embeddings" and name not in range(1, layers + 1)]
        if wrong:
            raise UserError(
                f"{self.key('frozen')} names {wrong[0]!r}; this student has embeddings and layers 1…{layers}."
            )

    @contextlib.contextmanager
    def freezing(self, student: Encoder) -> Iterator[None]:
        """Context in which the frozen parts do not learn."""
        self.check_frozen(student.spec.layers)
        parts = [parameter for name in self.frozen for parameter in self._part(student, name).parameters()]
        before = [parameter.requires_grad for parameter in parts]
        for parameter in parts:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, learns in zip(parts, before, strict=True):
                parameter.requires_grad_(learns)

    def _part(self, student: Encoder, name: str | int) -> nn.Module:
        if name == "embeddings":
            base = student.model.base_model
            return getattr(base, "embeddings", None) or student.model.get_input_embeddings()
        layers = student.layers
        if layers is None:
            raise UserError(
                f"{self.key('frozen')}: {student.spec.name} has no list of layers; freeze embeddings alone."
            )
        return layers[int(name) - 1]
