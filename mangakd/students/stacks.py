"""Lists of layers of a teacher, one or two, and which of them a student takes.

A model with an encoder and a decoder has two: layers 1…Le are the encoder's, Le + 1…Le + Ld the decoder's. A student takes some
of each, and not equally many of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from mangakd.core.errors import UserError
from mangakd.core.spec import stack_entries, stacks
from mangakd.models import seq2seq
from mangakd.models.hidden import layer_list


class Stack(NamedTuple):
    """stem: of the names of its weights. layers: how many. before: layers of the stack before it. of_two: whether one is."""

    stem: str
    layers: int
    before: int = 0
    of_two: bool = False

    def taken(self, layers: Sequence[int]) -> list[int]:
        """Which of its layers, from 0 on, are among the teacher's `layers`, in this order."""
        return [i - self.before - 1 for i in layers if self.before < i <= self.before + self.layers]

    def weights(self, source: dict[str, Tensor], layers: Sequence[int]) -> dict[str, Tensor]:
        """Of the student's layers. source: state_dict of the teacher.

        What the first layer alone has serves all layers, such as T5's positions, and stays in the first place.
        """
        each = [
            {name.removeprefix(prefix): t for name, t in source.items() if name.startswith(prefix)}
            for prefix in (f"{self.stem}.{i}." for i in range(self.layers))
        ]
        shared = each[0].keys() - each[1].keys() if len(each) > 1 and self.of_two else set()
        new = [{name: t for name, t in each[old].items() if name not in shared} for old in self.taken(layers)]
        new[0] |= {name: each[0][name] for name in shared}
        return {f"{self.stem}.{place}.{name}": t for place, layer in enumerate(new) for name, t in layer.items()}


def stacks_of(teacher: Any) -> list[Stack]:
    """The lists of layers to copy from. Raises UserError for architectures without them."""
    config = teacher.config
    if seq2seq.writes(teacher):
        first, second = seq2seq.layers(teacher)
        one, two = _stem(teacher, first), _stem(teacher, second)
        return [Stack(one, len(first), of_two=True), Stack(two, len(second), len(first), of_two=True)]
    if config.is_encoder_decoder:
        raise UserError(
            f"student.layers needs a teacher with one list of layers; {config.model_type} has an encoder and a decoder. "
            "Choose student.path."
        )
    stack = layer_list(teacher, config.num_hidden_layers)
    if stack is None:
        raise UserError(
            f"student.layers needs a teacher with a list of layers; {config.model_type} shares its layers. "
            "Choose a student of sizes (such as student=bert_mini) or student.path."
        )
    return [Stack(_stem(teacher, stack), len(stack))]


def _stem(teacher: Any, stack: nn.ModuleList) -> str:
    return next(name for name, module in teacher.named_modules() if module is stack)


def take(config: Any, layers: Sequence[int]) -> None:
    """Set the depths of a config with an encoder and a decoder. Raises UserError for layers that leave one of them out."""
    first, second = stacks(config)
    encoder, decoder = [i for i in layers if i <= first], [i for i in layers if i > first]
    if not encoder or not decoder or [*encoder, *decoder] != [*layers]:
        raise UserError(
            f"student.layers={list(layers)} must name layers of the teacher's encoder (1…{first}), then layers of its decoder "
            f"({first + 1}…{first + second}). Example: student.layers={example(config)}."
        )
    for entry, count in zip(stack_entries(config), (len(encoder), len(decoder)), strict=True):
        setattr(config, entry, count)
    config.num_hidden_layers = len(encoder)


def depth(config: Any) -> int:
    """How many layers a teacher has to take."""
    return sum(stacks(config)) if has_two(config) else config.num_hidden_layers


def has_two(config: Any) -> bool:
    """Whether a config says the layers of an encoder and of a decoder."""
    try:
        return bool(config.is_encoder_decoder and stack_entries(config))
    except KeyError:
        return False


def example(config: Any) -> str:
    """Every second layer of each list."""
    lists = stacks(config) if has_two(config) else (config.num_hidden_layers,)
    numbers = [i + sum(lists[:k]) for k, n in enumerate(lists) for i in range(2 - n % 2, n + 1, 2)]
    return f"[{','.join(map(str, numbers))}]"
