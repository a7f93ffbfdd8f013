"""Preflight of students that are built from their teacher: layers that cannot be taken, a start that cannot be had."""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import __version__ as version

from mangakd.core.errors import UserError
from mangakd.core.spec import Kind
from mangakd.models import load
from mangakd.models.late import AS_IT_IS, Interaction
from mangakd.students import blocks, stacks
from mangakd.students.build import Student, copy_layers, layers_config

STARTS = ("random", "teacher")
log = logging.getLogger(__name__)


def check_start(student: Student, teacher: Any, tokenizer: Any, kind: Kind) -> None:
    """Raises UserError for a start that the student cannot have, and warns of one that is ignored. teacher: its config."""
    key = "student.start"
    if student.start not in STARTS:
        raise UserError(f"{key}={student.start} must be one of {', '.join(STARTS)}.")
    if student.start == "random":
        return
    if not student.fits:
        source = "student.layers" if student.takes_layers else "student.path"
        log.warning("%s=%s is ignored: %s says where the weights come from.", key, student.start, source)
        return
    if kind == "tokens" or student.reads != AS_IT_IS:
        raise UserError(f"{key}=teacher fits classifiers, cross-encoders and embedding models. Set {key}=random.")
    config = student.config(teacher, tokenizer)
    blocks.check_families(config, teacher, key)
    own, taught = (each.hidden_size // each.num_attention_heads for each in (config, teacher))
    if own > taught:
        log.warning(
            "%s=teacher: a head of the student has %d dimensions and the teacher's have %d, so a part of each is unused at the "
            "start. student.sizes.num_attention_heads=%d uses all.", key, own, taught, _heads(config, taught),
        )  # fmt: skip


def _heads(config: Any, size: int) -> int:
    """The fewest heads of no more than `size` dimensions that divide the hidden size."""
    width = config.hidden_size
    return next(heads for heads in range(1, width + 1) if width % heads == 0 and width // heads <= size)


def check_layers(
    teacher: Any, layers: Sequence[int], kind: Kind = "labels", interaction: Interaction = AS_IT_IS
) -> None:
    """Raises UserError for layers that make no student, or none that can be loaded again, and names others that do.

    teacher: its model with a head of this kind, without weights (on the meta device).
    """
    stacks.stacks_of(teacher)
    layers_config(teacher.config, layers, interaction)
    reason = _misfit(teacher, layers, kind, interaction)
    if reason:
        depth = stacks.depth(teacher.config)
        others = (choice for choice in _nearby(list(layers), depth) if not _misfit(teacher, choice, kind, interaction))
        choice = next(others, None)
        cure = (
            f"student.layers=[{','.join(map(str, choice))}] works."
            if choice
            else "Choose a student of sizes or student.path."
        )
        raise UserError(f"{reason} {cure}")


def _misfit(teacher: Any, layers: Sequence[int], kind: Kind, interaction: Interaction) -> str:
    """Why these layers make no student; empty where they do."""
    try:
        config = layers_config(teacher.config, layers, interaction)
    except UserError as error:
        return str(error)
    try:
        type(config).from_dict(json.loads(config.to_json_string()))
    except Exception:  # each architecture checks its config with errors of its own
        kinds = ", ".join(dict.fromkeys(getattr(config, "layer_types", None) or ()))
        what = f" with {kinds} alone" if kinds else ""
        return f"student.layers={list(layers)} makes a {config.model_type}{what}, which transformers {version} cannot load."
    try:
        copy_layers(teacher, load.shape(config, "student.layers", kind), layers, slice(None))
    except UserError as error:
        return str(error)
    return ""


def _nearby(layers: list[int], depth: int) -> Iterator[list[int]]:
    """Other choices: with one layer moved, near ones first and the last layer before the first; then with one more."""
    for far in range(1, depth):
        for place in reversed(range(len(layers))):
            for layer in (layers[place] - far, layers[place] + far):
                if 1 <= layer <= depth and layer not in layers:
                    yield [*layers[:place], layer, *layers[place + 1 :]]
    yield from (sorted([*layers, layer]) for layer in range(1, depth + 1) if layer not in layers)
