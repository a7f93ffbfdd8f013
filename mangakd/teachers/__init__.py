"""Where a teacher's answers come from: `live(model)` and `ensemble_of(models)` of Hugging Face's classifiers.

Read in this order: base.py (what a provider is), local.py, ensemble.py, cached.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mangakd.core.errors import UserError
from mangakd.models.encoder import Encoder
from mangakd.teachers import standard
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.ensemble import EnsembleTeacher
from mangakd.teachers.local import LocalTeacher

__all__ = ["EnsembleTeacher", "LocalTeacher", "TeacherProvider", "ensemble_of", "live"]


def live(model: Any, labels: Sequence[str] | None = None) -> LocalTeacher:
    """A frozen model in this process. labels: the student's names in the student's order; the model's own where left out.

    Raises UserError where the model has other labels.
    """
    encoder = Encoder.of(model, "teacher")
    head = encoder.spec.head
    return LocalTeacher(encoder, replace(head, outputs=len(labels), names=tuple(labels)) if labels else head)


def ensemble_of(
    models: Sequence[Any], weights: Sequence[float] | None = None, combine: str = "probabilities"
) -> EnsembleTeacher:
    """Several models as one, in the label order of the first. combine: probabilities or logits (see teachers/ensemble.py).

    Raises UserError for combine="standardised", which needs validation rows, and for models that differ in head or tokenizer.
    """
    if combine == standard.COMBINE:
        raise UserError(f"combine={combine!r} needs the scores of validation rows: use the command (teacher=ensemble).")
    first = live(models[0])
    others = (LocalTeacher(Encoder.of(model, "teacher"), first.spec.head) for model in models[1:])
    return EnsembleTeacher([first, *others], weights, combine)
