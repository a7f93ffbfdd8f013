"""Preflight of models: vocabularies, sizes, a student that cannot be built, and losses that read what a model does not give."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head, Kind
from mangakd.losses.base import LossCallback
from mangakd.models import four_bit, heads, load, lora, seq2seq
from mangakd.models.adapters import check_installed
from mangakd.models.attention import offers_attention
from mangakd.models.late import AS_IT_IS, Interaction
from mangakd.models.outline import Outline
from mangakd.models.trial import answer_two_texts
from mangakd.runs.models import Models
from mangakd.students.build import Student
from mangakd.students.checks import check_layers, check_start
from mangakd.training.hardware import Hardware
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)
ANY_HEAD = Head.of_labels(("a", "b"))  # where only the encoder's weights are looked at, whatever is wrong with the data


def check_answers(
    outline: Outline | None, path: str, key: str, tokenizer: Any, kind: Kind, interaction: Interaction = AS_IT_IS
) -> None:
    """outline: None for a model whose head will be new; that of a language model is never new."""
    head = heads.of_kind(kind, load.load_config(path, key)) if kind == "tokens" else ANY_HEAD
    outline = outline or load.outline_for(path, head, key, interaction)
    answer_two_texts(load.encoder(outline.model, outline.head, key, tokenizer), tokenizer, f"{key}={path}")


def check_vocabulary(key: str, path: str, tokenizer: Any, config: Any) -> None:
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{key}={path}: its tokenizer has {len(tokenizer)} tokens and its model embeds {config.vocab_size}; "
            "they do not belong together. Save the model's own tokenizer beside it."
        )


def student(options: Student, models: Models, kind: Kind) -> None:
    """A student that cannot be built, or whose folder lacks weights."""
    check_start(options, models.teacher_config, models.student_tokenizer, kind)
    if options.path is None:
        if options.layers is not None:
            check_layers(models.teacher_shape, options.layers, kind, options.reads)
        _ = models.student_shape
        return
    key, tokenizer = "student.path", models.student_tokenizer
    check_vocabulary(key, options.path, tokenizer, load.load_config(options.path, key))
    check_answers(None, options.path, key, tokenizer, kind, options.reads)


def adapters(
    options: Student, shape: Callable[[], Any], kind: Kind, hardware: Hardware, stages: Sequence[Stage] = ()
) -> None:
    """Adapters, or a base in 4 bits, that the student cannot have here. shape: asked for adapters only."""
    if options.adapters is None:
        return
    check_installed()
    if (quantised := next((stage for stage in stages if stage.quantise), None)) is not None:
        raise UserError(
            f"{quantised.key('quantise')}={quantised.quantise} trains the ranges of all weights, and student.lora freezes them: "
            "train quantisers in a run of its own, with the saved student as student.path."
        )
    model = shape()
    whole = lora.head_parameters(model, kind)
    lora.target_modules(model, options.adapters.target_modules, whole)
    if options.adapters.four_bit:
        four_bit.check(hardware.kind, hardware.strategy, lora.target_modules(model, None, whole).values())


def stage_students(stages: Sequence[Stage], models: Models, kind: Kind, hardware: Hardware) -> None:
    """A student of a stage's own, such as an assistant, that cannot be built."""
    for stage in stages:
        if stage.student is None:
            continue
        key = stage.key("student")
        try:
            options = Student(**stage.student)
            check_start(options, models.teacher_config, models.student_tokenizer, kind)
            if options.path is None and options.layers is not None:
                check_layers(models.teacher_shape, options.layers, kind, options.reads)
            shape = load.shape(options.config(models.teacher_config, models.student_tokenizer), key, kind)
            adapters(options, lambda shape=shape: shape, kind, hardware)  # type: ignore[misc]
        except (UserError, TypeError) as error:
            raise UserError(f"{key}: {error}") from error


def lengths(max_length: int, shapes: Mapping[str, Any]) -> None:
    """Texts longer than a model has positions for. shapes: teacher, student → the model on the meta device."""
    for name, model in shapes.items():
        most = load.positions(model)
        if most is not None and isinstance(max_length, int) and max_length > most:
            raise UserError(
                f"data.max_length={max_length}, but the {name} has positions for {most} tokens. Set data.max_length={most} "
                "or less."
            )


def attention(implementation: str, shapes: Mapping[str, Any]) -> None:
    """Warns of an attention that an encoder–decoder has not: T5's is eager alone. shapes: as in `lengths`."""
    for side, model in shapes.items():
        if implementation == "flash_attention_2" and seq2seq.writes(model) and not model._supports_flash_attn:
            log.warning(
                "hardware.attention=%s changes nothing for the %s, a %s, whose attention is eager alone in transformers.",
                implementation, side, model.config.model_type,
            )  # fmt: skip


def taps(
    stages: Sequence[Stage], losses: Mapping[str, LossCallback], shapes: Mapping[str, Any], depths: Mapping[str, int]
) -> None:
    """Losses that read of a model what its architecture does not give. shapes, depths: of teacher and student."""
    problems: dict[str, None] = {}
    for stage in stages:
        for name, loss in stage.select(dict(losses)).items():
            for side, need in (("teacher", loss.requires.teacher), ("student", loss.requires.student)):
                problems |= dict.fromkeys(_untapped(name, loss, need, side, shapes[side], depths[side]))
    if problems:
        raise UserError("\n- ".join(problems))


def _untapped(name: str, loss: LossCallback, need: Need, side: str, model: Any, depth: int) -> Iterator[str]:
    kind = model.config.model_type
    if not need.hidden and not need.attention:
        return
    if seq2seq.writes(model):
        if need.attention:
            yield (
                f"losses.{name} reads attention, and the {side} is a {kind}, whose encoder and decoder are read at their hidden "
                f"states alone. Leave {name} out of losses; hidden compares layers of both."
            )
    elif model.config.is_encoder_decoder:
        yield (
            f"losses.{name} reads layers, and the {side} is a {kind}, which has an encoder and a decoder. Leave {name} out of "
            "losses; losses on logits (hard_label, output) fit."
        )
    elif need.attention and loss.reads_queries and not offers_attention(model, depth):
        cure = f"Set {loss.key('compare')}=kl or mse" if "compare" in loss.config else f"Leave {name} out of losses"
        yield (
            f"losses.{name} reads queries and keys, and the attention of the {side}, a {kind}, gives its probabilities only. "
            f"{cure}."
        )
