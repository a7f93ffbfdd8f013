"""Tiny models with an encoder and a decoder, with random weights: T5 with a tied and an untied head, mT5, BART and Marian.

Weights are blown up, so that logits are far from uniform.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from contract.tiny_models import tokenizer
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, BartConfig, MarianConfig, MT5Config, PegasusConfig, T5Config

from mangakd.core.outputs import TARGETS
from mangakd.core.spec import Head, ModelSpec
from mangakd.models import seq2seq
from mangakd.models.encoder import Encoder
from mangakd.models.heads import own

AFTER = Head("tokens", 0, source=True)
VOCAB, FIRST, SECOND = 130, 2, 3  # layers of the encoder and of the decoder
_T5 = {
    "vocab_size": VOCAB, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": FIRST, "num_decoder_layers": SECOND, "num_heads": 4,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
}  # fmt: skip
_BART = {
    "vocab_size": VOCAB, "d_model": 16, "encoder_layers": FIRST, "decoder_layers": SECOND, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "t5": lambda: T5Config(**_T5),
    "t5 untied": lambda: T5Config(**_T5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    "mt5 untied": lambda: MT5Config(**_T5),
    "bart": lambda: BartConfig(**_BART),
    "bart untied": lambda: BartConfig(**_BART),
    "marian": lambda: MarianConfig(**{**_BART, "decoder_start_token_id": 0, "scale_embedding": True}),
    "pegasus": lambda: PegasusConfig(**{**_BART, "decoder_start_token_id": 0}),
}


def model(kind: str, seed: int = 0, **entries: Any) -> Any:
    """In eval mode. entries: of its config."""
    torch.manual_seed(seed)
    config = seq2seq.keep_tables(CONFIGS[kind]())
    config.update(entries)
    built = AutoModelForSeq2SeqLM.from_config(config).eval()
    if "untied" in kind:
        seq2seq.untie(built)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() > 1 and parameter.requires_grad:  # the positions of Marian are computed
                parameter.copy_(nn.init.normal_(torch.empty_like(parameter), std=0.3))
        if hasattr(built, "final_logits_bias"):
            built.final_logits_bias.normal_()
    return built


def encoder(kind: str, seed: int = 0, **entries: Any) -> Encoder:
    """As `load.encoder` makes it, without a tokenizer."""
    built = model(kind, seed, **entries)
    return Encoder(built, ModelSpec.from_config(built.config, kind, own(AFTER, built.config)))


def save(folder: Path, kind: str = "t5 untied", seed: int = 0) -> Path:
    """As a folder with the tokenizer of tests/contract/tiny_models.py."""
    reader = tokenizer()
    ids = {
        "pad_token_id": reader.pad_token_id,
        "vocab_size": len(reader),
        "decoder_start_token_id": reader.pad_token_id,
    }
    Encoder(built := model(kind, seed, **ids), ModelSpec.from_config(built.config, kind, AFTER)).save_pretrained(folder)
    reader.save_pretrained(folder)
    return folder


def inputs(lengths: tuple[tuple[int, int], ...] = ((7, 4), (3, 5), (5, 1)), width: int = 0) -> dict[str, Tensor]:
    """Random tokens, the same for equal `lengths`: of source and target of each row. Padded on the right to `width`."""
    width = max(width, *(sum(each) for each in lengths))
    rng = np.random.default_rng(0)
    ids, mask = (torch.zeros(len(lengths), width, dtype=torch.long) for _ in range(2))
    for row, (source, target) in enumerate(lengths):
        ids[row, : source + target] = torch.from_numpy(rng.integers(3, VOCAB, source + target))
        mask[row, : source + target] = 1
    place = torch.arange(width)
    starts = torch.tensor([[source] for source, _ in lengths])
    return {"input_ids": ids, "attention_mask": mask, TARGETS: mask.bool() & (place >= starts)}


def own_logits(built: Any, given: dict[str, Tensor]) -> Tensor:
    """The model's own logits (P, V) at the targets: row by row, without padding, its decoder inputs written out by hand."""
    rows = []
    for ids, mask, targets in zip(given["input_ids"], given["attention_mask"], given[TARGETS], strict=True):
        source = [int(i) for i, there, target in zip(ids, mask, targets, strict=True) if there and not target]
        target = [int(i) for i, learnt in zip(ids, targets, strict=True) if learnt]
        decoder = torch.tensor([[built.config.decoder_start_token_id, *target[:-1]]])
        rows.append(built(input_ids=torch.tensor([source]), decoder_input_ids=decoder).logits[0])
    return torch.cat(rows)
