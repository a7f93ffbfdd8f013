"""The weights and sizes of a GGUF file: which tensors it has, under which names, and what llama.cpp must know to compute with
them.

transformers rotates the two halves of a head, and llama.cpp's `llama` rotates neighbours, as Meta's code does. Meta's query and
key weights were permuted when they were converted to transformers; GGUF takes that back. Models whose llama.cpp code rotates
halves (Qwen) are written as they are.
Source: convert_hf_to_gguf.py of llama.cpp (MIT), for names and the meaning of each entry.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
import torch

from mangakd.core.errors import UserError
from mangakd.export.checks import KEY

_QUERY, _KEYS = "attn_q", "attn_k"


@dataclass(frozen=True)
class Architecture:
    """name: of MODEL_ARCH of gguf. neighbours: whether llama.cpp rotates neighbours, so that q and k are permuted."""

    name: str
    neighbours: bool


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("LLAMA", True),  # SmolLM and SmolLM2, too
    "mistral": Architecture("LLAMA", True),
    "qwen2": Architecture("QWEN2", False),
    "qwen3": Architecture("QWEN3", False),
}
"""model_type of transformers → llama.cpp's."""
ROPES = ("default", "linear", "llama3", "yarn")
_YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "truncate": True,
    "attention_factor": None,
    "mscale": None,
    "mscale_all_dim": None,
}
"""Settings of YaRN whose usual values llama.cpp computes with, whatever config.json says."""


def check_architecture(config: Any, tokenizer: Any) -> None:
    """Raises UserError for an architecture, or a kind of positions, that the writer does not know."""
    known = ", ".join(ARCHITECTURES)
    if config.model_type not in ARCHITECTURES:
        raise UserError(
            f"{KEY} is a {config.model_type}, of which no GGUF file is written; known: {known} (SmolLM is a llama). Export "
            "merged alone: export=[merged]; llama.cpp's convert_hf_to_gguf.py may know that folder."
        )
    rope = config.rope_parameters or {}
    if unusual := _unusual(rope):
        raise UserError(
            f"{KEY} has {unusual} in its config.json, of which no GGUF file is written. Export merged alone."
        )
    if config.hidden_act != "silu":
        raise UserError(f"{KEY} has hidden_act={config.hidden_act}, and llama.cpp computes silu. Export merged alone.")
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{KEY} has a tokenizer of {len(tokenizer):,} tokens and embeddings of {config.vocab_size:,}: tokens lack. Resize "
            "the embeddings, or give the model's own tokenizer."
        )


def _unusual(rope: Mapping[str, Any]) -> str:
    """The first setting of positions that the file cannot hold; "" for none."""
    kind, part = rope.get("rope_type", "default"), rope.get("partial_rotary_factor", 1.0)
    if kind not in ROPES:
        return f"rope_type={kind}"
    if part != 1.0:
        return f"partial_rotary_factor={part}"
    names = _YARN if kind == "yarn" else ()
    return next((f"{name}={rope[name]}" for name in names if rope.get(name) not in (None, _YARN[name])), "")


def add_sizes(writer: Any, config: Any, context: int) -> None:
    """Entries of the model beside its tokenizer. writer: a GGUFWriter. context: tokens of a text."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(_key_heads(config))
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_size(config))
    _add_rope(writer, config)


def _add_rope(writer: Any, config: Any) -> None:
    from gguf import RopeScalingType

    rope = config.rope_parameters or {}
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))


def tensors(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """(name in GGUF, fp32 array) of each weight, in the order of the model. A tied head is the embeddings' tensor, and not
    repeated."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = model.config
    own = ARCHITECTURES[config.model_type]
    names = get_tensor_name_map(MODEL_ARCH[own.name], config.num_hidden_layers)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if frequencies := _frequencies(config):
        yield "rope_freqs.weight", np.array(frequencies, dtype=np.float32)
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise UserError(f"{KEY} has the weight {name}, which no GGUF file of a {config.model_type} holds.")
        array = tensor.detach().to(torch.float32).numpy()
        if own.neighbours and f".{_QUERY}." in target:
            array = permute(array, config.num_attention_heads)
        if own.neighbours and f".{_KEYS}." in target:
            array = permute(array, _key_heads(config))
        yield target, array


def permute(array: np.ndarray, heads: int) -> np.ndarray:
    """(H · 2 · R, …) with halves of each head → with their rows in turns: row 2r + h was row h · R + r."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _key_heads(config: Any) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _frequencies(config: Any) -> list[float]:
    """Factors by which Llama 3.1 divides the frequencies of its positions; [] for other kinds.

    Waves that are short against the original context stay, long ones are stretched by `factor`, and those between are mixed.
    """
    rope = config.rope_parameters or {}
    if rope.get("rope_type") != "llama3":
        return []
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    context, size = rope["original_max_position_embeddings"], head_size(config)
    factors = []
    for i in range(0, size, 2):
        wave = 2 * pi * rope["rope_theta"] ** (i / size)
        smooth = (context / wave - low) / (high - low)
        inside = 1 / ((1 - smooth) / factor + smooth) if low < high else 1.0
        factors.append(1.0 if wave < context / high else factor if wave > context / low else inside)
    return factors
