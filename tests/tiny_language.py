"""Tiny causal language models with random weights: the architectures whose heads and attention differ.

Weights are blown up, so that logits and attention maps are far from uniform.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    Qwen3Config,
)

from mangakd.core.outputs import TARGETS, Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.core.token_logits import FromStates
from mangakd.models import language
from mangakd.models.encoder import Encoder
from mangakd.models.heads import auto, own

VOCAB, LAYERS, SCALE = 90, 3, 8
TOKENS = Head("tokens", 0)
_IDS = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**_IDS, **_SIZES, tie_word_embeddings=True),
    "untied": lambda: LlamaConfig(**_IDS, **_SIZES),
    "gpt2": lambda: GPT2Config(**_IDS, n_embd=16, n_layer=LAYERS, n_head=4, n_inner=24, n_positions=64),
    "gemma2": lambda: Gemma2Config(
        **_IDS, **_SIZES, head_dim=8, sliding_window=4, final_logit_softcapping=3.0, attn_logit_softcapping=2.0,
        query_pre_attn_scalar=1,
    ),
    "cohere": lambda: CohereConfig(**_IDS, **_SIZES, logit_scale=0.25),
    "granite": lambda: GraniteConfig(**_IDS, **_SIZES, logits_scaling=4.0, embedding_multiplier=2.0, attention_multiplier=0.5),
    "qwen3": lambda: Qwen3Config(**_IDS, **_SIZES, head_dim=8),
    "phi": lambda: PhiConfig(**_IDS, **_SIZES),
    "mistral": lambda: MistralConfig(**_IDS, **_SIZES, sliding_window=4),
}  # fmt: skip


def model(kind: str, seed: int = 0, **entries: Any) -> Any:
    """In eval mode. entries: of its config."""
    torch.manual_seed(seed)
    settings = CONFIGS[kind]()
    settings.update(entries)
    built = auto("tokens", settings).from_config(settings).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(SCALE)
            elif name.endswith("bias"):  # new biases are 0
                parameter.normal_()
    return built


def encoder(kind: str, seed: int = 0, **entries: Any) -> Encoder:
    return of_model(model(kind, seed, **entries), f"{kind} {seed}")


def of_model(built: Any, name: str = "tiny") -> Encoder:
    """As `load.encoder` makes it, without a tokenizer."""
    language.prepare(built)
    return Encoder(built, ModelSpec.from_config(built.config, name, own(TOKENS, built.config)))


def inputs(lengths: tuple[int, ...] = (11, 7, 4), width: int | None = None) -> dict[str, Tensor]:
    """The same random tokens for equal `lengths`, padded on the right. Targets: half of the tokens, and the last of each row."""
    width = width or max(lengths)
    rng = np.random.default_rng(0)
    ids, mask = (torch.zeros(len(lengths), width, dtype=torch.long) for _ in range(2))
    targets = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.from_numpy(rng.integers(3, VOCAB, length))
        mask[row, :length] = 1
        targets[row, 1:length] = torch.from_numpy(rng.random(length - 1) < 0.5)
        targets[row, length - 1] = True
    return {"input_ids": ids, "attention_mask": mask, TARGETS: targets}


def logits(outputs: Outputs) -> Tensor:
    """(P, V) from the states and the head."""
    assert isinstance(outputs.tokens, FromStates)
    return outputs.tokens.head.logits(outputs.tokens.states)


def own_logits(built: Any, given: dict[str, Tensor]) -> Tensor:
    """The model's own logits (P, V) at the targets."""
    raw = built(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
    return torch.cat([raw.logits[row, at - 1][None] for row, at in given[TARGETS].nonzero().tolist()])
