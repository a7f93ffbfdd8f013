"""Frozen weights in 4 bits under adapters (QLoRA: Dettmers et al. 2023, arXiv:2305.14314): NF4 by bitsandbytes.

bitsandbytes quantises a weight when it moves to the device. A merged student never reads these weights back: bitsandbytes repacks
them on some CPUs, and what is read then is another matrix. The weights of a base that is read anew are rounded in the same way
instead, so that the merged student is the trained one.
"""

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mangakd.core.errors import UserError

NAME = "4bit"
_NF4 = {"quant_type": "nf4", "compress_statistics": True}  # the scales in 8 bits: double quantisation


def check(device: str, strategy: str, layers: Iterable[nn.Module]) -> None:
    """Raises UserError where a base cannot be kept in 4 bits. device: cuda, mps or cpu. layers: that would be quantised."""
    key = f"student.quantise_base={NAME}"
    if device != "cuda":
        raise UserError(
            f"{key} needs a CUDA GPU: bitsandbytes trains on 4-bit weights there alone, and this profile's device is {device}. "
            "Set it to null; with hardware.precision=bf16-mixed the frozen weights are in bf16."
        )
    if strategy == "fsdp":
        raise UserError(
            f"{key} does not work with hardware.strategy=fsdp, which shards no 4-bit weights. Use one or ddp."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{key} needs bitsandbytes, not installed here. Install it with: pip install 'mangakd[qlora]'")
    if other := next((each for each in layers if not isinstance(each, nn.Linear)), None):
        raise UserError(
            f"{key}: bitsandbytes quantises linear layers, and this model has {type(other).__name__}. Set it to null."
        )


def quantise(model: Any, names: Iterable[str]) -> None:
    """Replace the linear layers of these names by layers of 4-bit weights, in place."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name in names:
        layer = model.get_submodule(name)
        four = Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, device="meta", **_NF4)
        four.weight = Params4bit(layer.weight.data, requires_grad=False, **_NF4)
        four.bias = layer.bias
        model.set_submodule(name, four)
    model.is_loaded_in_4bit = True  # peft asks this before it looks at the layers


@torch.no_grad()
def round_weights(model: Any, names: Iterable[str]) -> None:
    """Give the linear layers of these names the weights that 4 bits can hold, in place and in their own dtype."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for name in names:
        weight = model.get_submodule(name).weight
        weight.copy_(dequantize_4bit(*quantize_4bit(weight, **_NF4)))
