"""Hidden states of chosen layers, kept by forward hooks while the model runs."""

from collections.abc import Collection
from functools import partial
from typing import Any

from torch import Tensor, nn


def layer_list(model: nn.Module, depth: int) -> nn.ModuleList | None:
    """The ModuleList that holds the model's `depth` layers."""
    return next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)


def tap(
    layers: nn.ModuleList, whole: Any, numbers: Collection[int], sink: dict[int, Tensor], before: int = 0
) -> list[Any]:
    """Hooks that keep the states (B, T, D) of the layers `numbers` in `sink`: 0 is what enters the first layer, then 1…L.

    whole: the model without its head. The last layer's states are its own: ModernBERT and its like end in a norm, as in
    output_hidden_states. before: how many layers another stack has before these, whose numbers go on from there.
    """
    hooks: list[Any] = []
    if 0 in numbers:
        hooks.append(layers[0].register_forward_pre_hook(partial(_keep_input, sink), with_kwargs=True))
    for i in {*numbers} - {0}:
        source = whole if i == before + len(layers) else layers[i - before - 1]
        hooks.append(source.register_forward_hook(partial(_keep_output, sink, i)))
    return hooks


# Functions with bound arguments, not closures: deepcopy and pickle then give the copy's hooks the copy's dict.


def _keep_input(sink: dict[int, Tensor], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    sink[0] = args[0] if args else kwargs["hidden_states"]


def _keep_output(sink: dict[int, Tensor], layer: int, _: nn.Module, __: Any, output: Any) -> None:
    sink[layer] = output if isinstance(output, Tensor) else output[0]
