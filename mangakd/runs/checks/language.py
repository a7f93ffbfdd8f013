"""Preflight of language models: tokens that two models read alike, positions, and what is made of classifiers alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import ModelSpec
from mangakd.export.language.variants import check_student
from mangakd.models import load
from mangakd.runs.exports import Exports
from mangakd.tasks.base import Task
from mangakd.teachers.options import TeacherOptions
from mangakd.training.hardware import Hardware
from mangakd.training.stages import Stage


def vocabularies(task: Task, student: ModelSpec, teacher: ModelSpec) -> None:
    """A teacher with another tokenizer, for a task that compares both models token by token."""
    if task.compares and student.vocabulary != teacher.vocabulary:
        raise UserError(
            f"{student.name} and {teacher.name} have different tokenizers, and task={task.name} compares them token by token. "
            "Use a student with the teacher's tokenizer. To learn from texts that such a teacher wrote, give these texts as "
            "data, set teacher.path to the student's own model, and distill.alpha=0."
        )


def lengths(max_length: int, task: Task, shapes: Mapping[str, Any]) -> None:
    """Texts longer than a language model was made for: most compute positions, and would read on without an error.

    An encoder has positions for a source, and its decoder as many for a target.

    shapes: teacher, student → the model on the meta device.
    """
    for name, model in shapes.items() if task.kind == "tokens" else ():
        most, target = getattr(model.config, "max_position_embeddings", None), task.max_target_length
        if not isinstance(most, int):
            continue
        if max_length > most and load.positions(model) is None:  # else models.lengths says it
            cut = (
                "an answer that does not fit is left out, or cut with task.too_long=cut"
                if target is None
                else "a conversation that does not fit loses its oldest turns"
            )
            raise UserError(
                f"data.max_length={max_length}, but the {name} is a {model.config.model_type} for {most} tokens at most. Set "
                f"data.max_length={most} or less; {cut}."
            )
        if target is not None and target > most:
            raise UserError(
                f"task.max_target_length={target}, but the {name} is a {model.config.model_type} that writes {most} tokens at "
                f"most. Set task.max_target_length={most} or less; a longer target is left out."
            )


def writing(task: Task, hardware: Hardware) -> None:
    """A student in shards that would write texts on validation: each step of a shard needs all ranks, and one rank writes."""
    if task.generate_every and hardware.strategy == "fsdp":
        raise UserError(
            f"task.generate_every={task.generate_every} needs a student that is whole on each device: hardware.strategy=fsdp "
            "spreads it over all of them. Set task.generate_every=0, or hardware.strategy=ddp."
        )


def exports(exports: Exports, task: Task, config: Callable[[], Any], tokenizer: Callable[[], Any]) -> None:
    """Variants of another kind of student, and language models that have none. config, tokenizer: of the student."""
    if not exports.callbacks:
        return
    decoder = task.kind == "tokens" and task.max_target_length is None
    if decoder and not exports.language:
        raise UserError(
            f"{exports.names[0]} is no variant of a language model. Set some of export=[merged,gguf,openvino_lm,vllm], or leave "
            "it out: student/ in the run's folder is a folder of transformers, which loads with AutoModelForCausalLM."
        )
    if exports.language and not decoder:
        raise UserError(
            f"{exports.names[0]} is a variant of language models, and task={task.name} trains none. Set export=[openvino,onnx]."
        )
    if exports.language:
        check_student(exports.language_rows, config(), tokenizer())


def made_of_classifiers(task: Task, teacher: TeacherOptions, stages: Sequence[Stage]) -> None:
    """Ensembles and quantisers, which language models do not have yet."""
    if task.kind != "tokens":
        return
    if len(teacher.models) > 1:
        raise UserError(
            f"the teacher has {len(teacher.models)} members, and the answers of several language models are not put together. "
            "Give one: teacher=local."
        )
    if quantising := [stage for stage in stages if stage.quantise is not None]:
        raise UserError(
            f"{quantising[0].key('quantise')}={quantising[0].quantise}: quantisers are trained in encoders, not in language "
            "models. Set it to null."
        )
