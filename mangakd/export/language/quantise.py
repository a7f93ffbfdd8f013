"""Weights in GGUF's types: F16 and Q8_0 by the package gguf, K-quants by llama.cpp's own quantiser out of the package xllamacpp.

A file has one type for most matrices; a few get more bits, as llama.cpp's llama-quantize chooses them for the same name. A matrix
whose rows are no multiple of a type's block gets the type that llama-quantize falls back to. Vectors stay in F32.
Source: llama_tensor_get_type of llama.cpp (MIT).
"""

import ctypes
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError

_BLOCK = 256  # numbers of a block of a K-quant
_FALL_BACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_BY_GGUF = ("F32", "F16", "Q8_0", "Q5_0", "Q5_1")
_LARGEST_F16 = 65504.0


@dataclass(frozen=True)
class Recipe:
    """file_type: of LlamaFileType. base: type of most matrices. head, more: of the head, and of values and ffn_down in some
    layers."""

    file_type: str
    base: str
    head: str
    more: str

    @property
    def types(self) -> set[str]:
        return {self.base, self.head, self.more}


RECIPES: Mapping[str, Recipe] = {
    "gguf_f16": Recipe("MOSTLY_F16", "F16", "F16", "F16"),
    "gguf_q8_0": Recipe("MOSTLY_Q8_0", "Q8_0", "Q8_0", "Q8_0"),
    "gguf_q6_k": Recipe("MOSTLY_Q6_K", "Q6_K", "Q6_K", "Q6_K"),
    "gguf_q5_k_m": Recipe("MOSTLY_Q5_K_M", "Q5_K", "Q6_K", "Q6_K"),
    "gguf_q4_k_m": Recipe("MOSTLY_Q4_K_M", "Q4_K", "Q6_K", "Q6_K"),
}


def type_of(recipe: Recipe, name: str, shape: tuple[int, ...], layers: int, tied: bool) -> str:
    """The type of a tensor. name: in GGUF. tied: whether the embeddings are the head."""
    if len(shape) == 1:
        return "F32"
    own = recipe.base
    if name == ("token_embd.weight" if tied else "output.weight"):
        own = recipe.head
    elif (".attn_v." in name or ".ffn_down." in name) and _more_bits(int(name.split(".")[1]), layers):
        own = recipe.more
    if own in _FALL_BACK and shape[-1] % _BLOCK:
        own = _FALL_BACK[own]
    return "F16" if own != "F16" and shape[-1] % 32 else own


def quantise(array: np.ndarray, kind: str) -> np.ndarray:
    """fp32 (R, N) → float16 (R, N), or bytes (R, ·). Raises UserError for numbers that are too large for F16."""
    from gguf import GGMLQuantizationType, quants

    if kind == "F16" and (largest := float(np.abs(array).max(initial=0.0))) > _LARGEST_F16:
        raise UserError(
            f"a weight of {largest:.3g} does not fit into 16 bits. Remove gguf_f16; gguf_q8_0 keeps a scale in each block."
        )
    if kind in _BY_GGUF:
        done: np.ndarray = quants.quantize(array, GGMLQuantizationType[kind])
        return done
    return _by_llama(np.ascontiguousarray(array, dtype=np.float32), GGMLQuantizationType[kind])


def check_k_quants(config: Any, tokenizer: Any) -> None:
    """Raises UserError where the installed xllamacpp has no quantiser."""
    if importlib.util.find_spec("xllamacpp") is not None and quantiser() is None:
        raise UserError(
            "gguf_q6_k, gguf_q5_k_m and gguf_q4_k_m cannot be made: the installed xllamacpp does not export ggml_quantize_chunk, "
            "llama.cpp's quantiser. Install the version of constraints.txt, or remove them."
        )


@cache
def quantiser() -> Callable[..., int] | None:
    """ggml_quantize_chunk(type, source, target, start, rows, numbers of a row, importance) of ggml.h; None if it is not exported.

    ggml.h is the public interface of ggml. xllamacpp's Python names have no quantiser; its library holds ggml's.
    """
    origin = importlib.util.find_spec("xllamacpp")
    if origin is None or not origin.submodule_search_locations:
        return None
    files = sorted(Path(next(iter(origin.submodule_search_locations))).glob("xllamacpp*.so"))
    try:
        function: Any = ctypes.CDLL(str(files[0])).ggml_quantize_chunk
    except (OSError, IndexError, AttributeError):
        return None
    long, pointer = ctypes.c_int64, ctypes.c_void_p
    function.argtypes = [ctypes.c_int, pointer, pointer, long, long, long, pointer]
    function.restype = ctypes.c_size_t
    return function  # type: ignore[no-any-return]


def _by_llama(array: np.ndarray, kind: Any) -> np.ndarray:
    from gguf import quant_shape_to_byte_shape

    function = quantiser()
    assert function is not None, "check_k_quants was not asked"
    target = np.empty(quant_shape_to_byte_shape(array.shape, kind), dtype=np.uint8)
    size = function(int(kind), array.ctypes.data, target.ctypes.data, 0, len(array), array.shape[-1], None)
    if size != target.nbytes:
        raise RuntimeError(f"ggml_quantize_chunk wrote {size} bytes of {kind.name}, not {target.nbytes}")
    return target


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third one between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
