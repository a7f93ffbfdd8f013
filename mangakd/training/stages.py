"""`Stage`: one fit of a recipe. Weights are carried over; losses, texts, epochs and learning rate are the stage's own.

A recipe is a list of stages (conf/stages). TinyBERT's first learns features without labels, then soft targets; progressive
distillation thaws the student from the top; a chain puts an assistant between teacher and student. What a stage leaves out
it inherits from the run.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mangakd.core.errors import UserError, near
from mangakd.models.encoder import Encoder, layer_list

TEXTS = ("labelled", "augmented", "unlabelled")
TEACHERS = ("run", "stored", "previous")
KEEPS = (None, "best", "last")
QUANTISES = (None, "int8")


@dataclass(frozen=True)
class Stage:
    """losses: names of the run's losses, or None for all. texts: some of labelled, augmented, unlabelled.

    epochs, lr: None for the run's. frozen: `embeddings` and layers 1…L that do not learn. patience: epochs without a better
    validation score after which the stage ends. keep: best (validation epoch) | last; None: best where the losses read the
    logits, as a score before that says nothing. teacher: run | stored (the same, its logits kept on disk and read again in
    every epoch) | previous (the model that the stage before has trained).
    quantise: int8 trains the student with fake quantisers in it (training/quantise.py), in the last stage.
    student: entries of conf/student for a model of this stage's own, such as an assistant; the next stage starts afresh.
    """

    name: str
    losses: Sequence[str] | None = None
    texts: Sequence[str] = ("labelled",)
    epochs: int | None = None
    lr: float | None = None
    frozen: Sequence[str | int] = ()
    patience: int | None = None
    keep: str | None = None
    teacher: str = "run"
    quantise: str | None = None
    student: dict[str, Any] | None = field(default=None)

    def __post_init__(self) -> None:
        for key, known in (("teacher", TEACHERS), ("keep", KEEPS), ("quantise", QUANTISES)):
            if getattr(self, key) not in known:
                raise UserError(f"{self.key(key)}={getattr(self, key)} must be one of {', '.join(map(str, known))}.")
        unknown = [name for name in self.texts if name not in TEXTS]
        if unknown or not self.texts:
            hint = near(str(unknown[0]), TEXTS) if unknown else ""
            raise UserError(f"{self.key('texts')}={list(self.texts)} must name some of {', '.join(TEXTS)}{hint}")
        for key in ("epochs", "patience"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"{self.key(key)}={value} must be a whole number from 1 on, or null.")

    def key(self, option: str) -> str:
        return f"stages.{self.name}.{option}"

    def chosen(self, losses: dict[str, Any]) -> dict[str, Any]:
        """Of the run's losses (name → anything), those of this stage. Raises UserError for a name that is not there."""
        if self.losses is None:
            return losses
        missing = [name for name in self.losses if name not in losses]
        if missing:
            raise UserError(
                f"{self.key('losses')} names {missing[0]}, which is no loss of this run{near(missing[0], losses)} "
                f"Add it: losses=[{','.join([*losses, *missing])}]."
            )
        return {name: losses[name] for name in self.losses}

    def check_frozen(self, layers: int) -> None:
        """Raises UserError for parts that a student of so many layers has not."""
        wrong = [name for name in self.frozen if name != "embeddings" and name not in range(1, layers + 1)]
        if wrong:
            raise UserError(
                f"{self.key('frozen')} names {wrong[0]!r}; this student has embeddings and layers 1…{layers}."
            )

    @contextlib.contextmanager
    def freezing(self, student: Encoder) -> Iterator[None]:
        """The frozen parts do not learn while inside."""
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
            return student.model.base_model.embeddings
        layers = layer_list(student.model, student.spec.layers)
        if layers is None:
            raise UserError(
                f"{self.key('frozen')}: {student.spec.name} has no list of layers; freeze embeddings alone."
            )
        return layers[int(name) - 1]
