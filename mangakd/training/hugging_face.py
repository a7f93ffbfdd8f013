"""Converts the arguments of a DistillModule, Hugging Face models and batches, to mangakd's objects.

Errors name the argument, because a Lightning user has no config keys.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.core.spec import Head, ModelSpec, numbered
from mangakd.losses.base import LossCallback
from mangakd.losses.hard_label import IGNORE
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.ensemble import EnsembleTeacher
from mangakd.teachers.local import LocalTeacher

log = logging.getLogger(__name__)
LABELS = ("labels", "label", "label_ids")


def teacher(models: Any, student: Encoder) -> TeacherProvider | None:
    """models: a classifier, several as an ensemble of equal weights, a provider, or None."""
    if models is None:
        return None
    if isinstance(models, Sequence):
        return EnsembleTeacher([_one_teacher(each, student) for each in models])
    return _one_teacher(models, student)


def _one_teacher(model: Any, student: Encoder) -> TeacherProvider:
    if isinstance(model, TeacherProvider):
        if model.spec.head != student.spec.head and {model.spec.head.kind, student.spec.head.kind} != {"vector"}:
            raise UserError(_other_head(model.spec.head, student.spec.head))
        return model
    if model in (student, student.model):
        raise UserError("teacher and student are the same object, and the teacher stays frozen: give a copy of it.")
    teacher = Encoder.of(model, "teacher")
    head = student.spec.head
    if replace(teacher.spec.head, names=()) != replace(head, names=()) or set(teacher.spec.head.names) != set(
        head.names
    ):
        raise UserError(_other_head(teacher.spec.head, head))
    return LocalTeacher(teacher, head)


def _other_head(teacher: Head, student: Head) -> str:
    if (teacher.kind, teacher.several) != (student.kind, student.several):
        return (
            f"teacher and student have different heads: the teacher's is {teacher} ({teacher.problem_type}), the student's "
            f"{student} ({student.problem_type}). Load both with the same problem_type."
        )
    first = next((pair for pair in zip(_names(teacher), _names(student), strict=False) if pair[0] != pair[1]), None)
    what = (
        f"name the first output that differs {first[0]!r} and {first[1]!r}"
        if first
        else "have other numbers of outputs"
    )
    return (
        f"teacher and student have different labels ({teacher.outputs} and {student.outputs}): their configs {what}. "
        "Outputs are matched by name: load the student with id2label=teacher.config.id2label and "
        "label2id=teacher.config.label2id."
    )


def _names(head: Head) -> tuple[str, ...]:
    return head.names or numbered(head.outputs)


def losses(
    losses: Mapping[str, LossCallback] | LossSet | None, student: ModelSpec, teacher: TeacherProvider | None, seed: int
) -> LossSet:
    """Bind the losses to both models. `seed` determines the initial weights of projections."""
    if isinstance(losses, LossSet):
        return losses
    terms = LossSet(losses or {})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        terms.bind(student, teacher.spec if teacher is not None else None)
    if teacher is not None and not terms.needs_teacher:
        log.warning("teacher is ignored: no loss learns from it (losses: %s).", ", ".join(terms.callbacks))
    if teacher is not None and (lacks := terms.requires.teacher.missing(teacher.gives)):
        raise UserError(f"teacher gives no {lacks}, which these losses read; leave them out or give one live model.")
    return terms


def batch(collated: Any, student: Encoder, teacher: TeacherProvider | None) -> Batch:
    """Convert a collated batch to `{"student": …, "teacher": …, "labels": …}`. A batch of that form stays unchanged."""
    if not isinstance(collated, Mapping):
        raise UserError(
            f"a batch is a {type(collated).__name__}; a mapping is needed, as DataCollatorWithPadding makes it."
        )
    if "student" in collated:
        return {
            **collated,
            "teacher": collated.get("teacher", collated["student"]),
            "labels": _labels(collated, collated["student"]),
        }
    if not _one_vocabulary(student, teacher):
        raise UserError(
            "student and teacher have vocabularies of different sizes, so they cannot read the same token ids: give batches of "
            '{"student": …, "teacher": …, "labels": …}, each tokenised by its own tokenizer.'
        )
    inputs = {name: value for name, value in collated.items() if isinstance(value, Tensor) and name not in LABELS}
    lacks = [name for name in ("input_ids", "attention_mask") if name not in inputs]
    if lacks:
        raise UserError(f"a batch has no {' and no '.join(lacks)}; it has {', '.join(map(str, collated))}.")
    return {"student": inputs, "teacher": inputs, "labels": _labels(collated, inputs)}


def _labels(collated: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> Tensor:
    labels = next((collated[name] for name in LABELS if collated.get(name) is not None), None)
    return labels if labels is not None else torch.full((len(inputs["input_ids"]),), IGNORE)


def _one_vocabulary(student: Encoder, teacher: TeacherProvider | None) -> bool:
    """Whether both models can read the same token ids. Vocabularies of equal size count as equal."""
    encoders = [student, *(teacher.encoders if teacher is not None else ())]
    return len({each.model.config.vocab_size for each in encoders}) == 1
