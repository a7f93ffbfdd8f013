"""Group sizes of INT4 weights, and of the activations that OpenVINO quantises while it computes.

A group of weights shares a scale. It lies in one row of a matrix, so its size G must divide the length of all rows; NNCF raises
otherwise. OpenVINO multiplies groups of INT8 activations with groups of INT4 weights in integers, if the size A of the former is
a multiple of 16 and divides G. Otherwise the property still reads A, and the product is computed in floats
(findings/dynamic_quantisation_off.sh). So

    G   largest multiple of 32 up to 128 that divides all rows, else of 16, else the largest divisor ≥ 16, else whole rows
    A   32 if 32 divides G, else 16 if 16 does, else 0: off; 32 for whole rows

Rows of 576 and 1,536 numbers: G = 96, A = 32. Rows of 312 and 1,248: G = 104, A = 0.
The smaller A, the more exact: of SmolLM2 in INT8, KL is 0.008 nats with 32 and 0.015 with 96.
"""

from collections.abc import Iterable
from math import gcd
from typing import Any

from mangakd.core.errors import UserError

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})  # whose layers `row_lengths` knows
LARGEST = 128
WHOLE_ROW = -1  # one group a row, as NNCF writes it
_ACTIVATIONS = (32, 16)


def check_family(config: Any, word: str) -> None:
    """Raises UserError for an architecture of another family. word: of export=[…]."""
    if config.model_type not in FAMILIES:
        raise UserError(
            f"a student of the architecture {config.model_type} has no variant of export=[{word}]; known: "
            f"{', '.join(sorted(FAMILIES))}. Remove {word} from export."
        )


def row_lengths(config: Any) -> frozenset[int]:
    """Of the matrices of a decoder layer: what attention and feed-forward read, and what their last matrices read."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return frozenset({config.hidden_size, config.intermediate_size, heads * size})


def weight_group(rows: Iterable[int], allowed: Iterable[int] = range(16, LARGEST + 1)) -> int:
    """G, or WHOLE_ROW where no allowed size divides all rows."""
    common = gcd(*rows)
    sizes = [size for size in allowed if common % size == 0]
    for multiple in (*_ACTIVATIONS, 1):
        if fitting := [size for size in sizes if size % multiple == 0]:
            return max(fitting)
    return WHOLE_ROW


def activation_group(weights: int) -> int:
    """A for groups of `weights`; 0 is off."""
    return next((size for size in _ACTIVATIONS if weights == WHOLE_ROW or weights % size == 0), 0)
