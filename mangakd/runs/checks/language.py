"""Preflight of language models: tokens that two models read alike, positions, and what is made of classifiers alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Kind, ModelSpec
from mangakd.runs.exports import Exports
from mangakd.tasks.base import Task
from mangakd.teachers.options import TeacherOptions
from mangakd.training.stages import Stage


def vocabularies(task: Task, student: ModelSpec, teacher: ModelSpec) -> None:
    """A teacher with another tokenizer, for a task that compares both models token by token."""
    if task.compares and student.vocabulary != teacher.vocabulary:
        raise UserError(
            f"{student.name} and {teacher.name} have different tokenizers, and task={task.name} compares them token by token. "
            "Use a student with the teacher's tokenizer. To learn from texts that such a teacher wrote, give these texts as "
            "data, set teacher.path to the student's own model, and distill.alpha=0."
        )


def lengths(max_length: int, kind: Kind, shapes: Mapping[str, Any]) -> None:
    """Texts longer than a language model was made for: most compute positions, and would read on without an error.

    shapes: teacher, student → the model on the meta device.
    """
    for name, model in shapes.items() if kind == "tokens" else ():
        most = getattr(model.config, "max_position_embeddings", None)
        if isinstance(most, int) and max_length > most:
            raise UserError(
                f"data.max_length={max_length}, but the {name} is a {model.config.model_type} for {most} tokens at most. Set "
                f"data.max_length={most} or less; an answer that does not fit is left out, or cut with task.too_long=cut."
            )


def made_of_classifiers(kind: Kind, teacher: TeacherOptions, exports: Exports, stages: Sequence[Stage]) -> None:
    """Ensembles, exports and quantisers, none of which language models have yet."""
    if kind != "tokens":
        return
    if len(teacher.models) > 1:
        raise UserError(
            f"the teacher has {len(teacher.models)} members, and the answers of several language models are not put together. "
            "Give one: teacher=local."
        )
    if exports.callbacks:
        raise UserError(
            "export=[…] makes files of encoders, not of language models. Leave it out: student/ in the run's folder is a folder "
            "of transformers, which loads with AutoModelForCausalLM."
        )
    if quantising := [stage for stage in stages if stage.quantise is not None]:
        raise UserError(
            f"{quantising[0].key('quantise')}={quantising[0].quantise}: quantisers are trained in encoders, not in language "
            "models. Set it to null."
        )
