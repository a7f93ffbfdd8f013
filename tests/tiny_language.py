"""Tiny causal language models with random weights: the architectures whose heads and attention differ.

Weights are blown up, so that logits and attention maps are far from uniform.
"""

from array import array
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
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
    Qwen2Config,
    Qwen3Config,
)

from mangakd.core.outputs import TARGETS, Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.core.token_logits import FromStates
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.token_files import Part
from mangakd.data.tokens import Tokens
from mangakd.models import language
from mangakd.models.encoder import Encoder
from mangakd.models.heads import auto, own
from mangakd.teachers.options import Member, TeacherContext

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
    "qwen2": lambda: Qwen2Config(**_IDS, **_SIZES, tie_word_embeddings=True),
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


def split(count: int, seed: int = 0) -> EncodedSplit:
    """Random sequences of 4 to 12 tokens. Targets: half of the tokens, and the last of each sequence."""
    rng = np.random.default_rng(seed)
    rows = [array("i", rng.integers(3, VOCAB, rng.integers(4, 13)).tolist()) for _ in range(count)]
    learnt = [array("i", [0, *rng.integers(0, 2, len(row) - 2).tolist(), 1]) for row in rows]
    part = Part.of(rows, {TARGETS: learnt})
    ids, marks = part.lists["input_ids"], part.lists[TARGETS]
    starts = np.cumsum(part.lengths) - part.lengths
    tokens = Tokens(np.concatenate([ids, marks]), starts, part.lengths, part.keys, targets=starts + len(ids))
    return EncodedSplit(Sides(tokens, tokens, 0, 0), {}, {"targets": np.array([sum(each) for each in learnt])})


class Teachers:
    """`context.load` for tests: the same language model for every member. Counts its forward passes."""

    def __init__(self, kind: str = "gemma2") -> None:
        self.forwards, self.loads, self._kind = 0, 0, kind

    def __call__(self, member: Member) -> Encoder:
        self.loads += 1
        made = encoder(self._kind, member.seed)
        made.spec = replace(made.spec, vocabulary="v")
        language.decoder(made.model).register_forward_hook(self._count)
        return made

    def _count(self, *_: Any) -> None:
        self.forwards += 1


def context(cache: Path, load: Any, rows: int = 30, batch_size: int = 4) -> TeacherContext:
    splits = {name: split(count, seed) for seed, (name, count) in enumerate({"train": rows, "validation": 9}.items())}
    return TeacherContext(TOKENS, load, splits, cache, torch.device("cpu"), batch_size, silent)


@contextmanager
def silent(title: str, total: int) -> Any:
    yield lambda rows: None
