"""Preflight of models: vocabularies, sizes, a student that cannot be built, and losses that read what a model does not give."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head, Kind
from mangakd.losses.base import LossCallback
from mangakd.models import load, lora
from mangakd.models.adapters import check_installed
from mangakd.models.encoder import offers_attention
from mangakd.models.late import AS_IT_IS, Interaction
from mangakd.models.outline import Outline
from mangakd.models.trial import answer_two_texts
from mangakd.runs.models import Models
from mangakd.students.build import Student, check_layers
from mangakd.training.stages import Stage

ANY_HEAD = Head.of_labels(("a", "b"))  # where only the encoder's weights are looked at, whatever is wrong with the data


def check_answers(
    outline: Outline | None, path: str, key: str, tokenizer: Any, kind: Kind, interaction: Interaction = AS_IT_IS
) -> None:
    """outline: None for a model whose head will be new; that of a language model is never new."""
    head = Head(kind, 0) if kind == "tokens" else ANY_HEAD
    outline = outline or load.outline_for(path, head, key, interaction)
    answer_two_texts(load.encoder(outline.model, outline.head, key, tokenizer), tokenizer, f"{key}={path}")


def check_vocabulary(key: str, path: str, tokenizer: Any, config: Any) -> None:
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{key}={path}: its tokenizer has {len(tokenizer)} tokens and its model embeds {config.vocab_size}; "
            "they do not belong together. Save the model's own tokenizer beside it."
        )


def student(options: Student, models: Models, kind: Kind) -> None:
    """A student that cannot be built, whose folder lacks weights, or that cannot have the adapters asked for."""
    _adapters(options, models.student_shape, kind)
    if options.path is None:
        if options.layers is not None:
            check_layers(models.teacher_shape, options.layers, kind, options.reads)
        return
    key, tokenizer = "student.path", models.student_tokenizer
    check_vocabulary(key, options.path, tokenizer, load.load_config(options.path, key))
    check_answers(None, options.path, key, tokenizer, kind, options.reads)


def _adapters(options: Student, shape: Any, kind: Kind) -> None:
    if options.adapters is None:
        return
    check_installed()
    lora.target_modules(shape, options.adapters.target_modules, lora.head_parameters(shape, kind))


def stage_students(stages: Sequence[Stage], models: Models, kind: Kind) -> None:
    """A student of a stage's own, such as an assistant, that cannot be built."""
    for stage in stages:
        if stage.student is None:
            continue
        key = stage.key("student")
        try:
            options = Student(**stage.student)
            if options.path is None and options.layers is not None:
                check_layers(models.teacher_shape, options.layers, kind, options.reads)
            _adapters(
                options, load.shape(options.config(models.teacher_config, models.student_tokenizer), key, kind), kind
            )
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
    if model.config.is_encoder_decoder:
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
