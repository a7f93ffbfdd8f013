"""A small encoder–decoder for tests and the quickstart, made on the spot: T5's shape, and a tokenizer trained on given texts.

`teacher.path=embedded_t5` is the one whose tokenizer was trained on the conversations of the made-up shop.

Its weights are fine-tuned before they teach anything. A rewrite is mostly copied, and a model of random weights learns to copy
late: after three epochs of the shop's turns its loss was 0.8 nats a token, and it named wrong titles. So `copying` gives the
first layers an induction circuit, which pretrained models have learnt; the loss was then below 0.3.
The tokenizer is byte-level BPE, so that it reads any text, with T5's special tokens: padding, which also starts the decoder, the
end that each text gets, and the unknown token, which no text has.
Sources: Olsson et al. 2022, arXiv:2209.11895 (the circuit); Trockman and Kolter 2023, arXiv:2305.09828 (to begin with what
trained models have).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast, T5Config

from mangakd.core.locks import made_once
from mangakd.models.embedded_tiny import digest, save, train_bpe
from mangakd.shop import manga_rewrites

NAME = "embedded_t5"
LONGEST = 512
SIZES: dict[str, Any] = {
    "d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
}  # fmt: skip
MARKS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_BEFORE = 1  # T5's bucket of the relative position −1
_SURE, _MATCH = 6.0, 0.25
"""Bias of the attention to the token before; scale of the product of equal tokens, near 16 with 64 dimensions of a head."""


def of_shop(cache: Path) -> Path:
    """The folder of the model that reads the shop's language."""
    turns = manga_rewrites.make_split("train")
    return folder([text for turn in turns for text in (turn.utterance, *turn.rewrites, turn.answer)], cache)


def folder(texts: Sequence[str], cache: Path, seed: int = 0, sizes: Mapping[str, Any] | None = None) -> Path:
    """A folder with config, weights and the tokenizer of `texts` in `cache`, made at the first call. sizes: null, SIZES."""
    sizes = SIZES if sizes is None else sizes

    def make(folder: Path) -> None:
        tokenizer = train_tokenizer(texts)
        save(lambda: copying(AutoModelForSeq2SeqLM.from_config(config(tokenizer, sizes))), tokenizer, seed, folder)

    place = cache / "models" / f"t5-{digest(texts, sizes, _SURE, _MATCH, seed)}"
    return made_once(place, "making a tiny encoder–decoder", make)


def train_tokenizer(texts: Sequence[str]) -> Any:
    """The same tokenizer for the same texts; it ends each text with `</s>`, as T5's does."""
    tokenizer = train_bpe(texts, [*MARKS.values()])
    end = MARKS["eos_token"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **MARKS)


def config(tokenizer: Any, sizes: Mapping[str, Any] = SIZES) -> T5Config:
    """Of a model that reads with this tokenizer."""
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id")}
    start = tokenizer.pad_token_id
    return T5Config(**{**sizes, **ids, "decoder_start_token_id": start, "vocab_size": len(tokenizer)})


@torch.no_grad()
def copying(model: Any) -> Any:
    """A T5 of random weights, in place, whose decoder writes what follows its last token in the source.

    A head of the first encoder layer writes the token before each token into directions of its own. A head of the first decoder
    layer looks for the token that was before as the decoder's last token, and all heads of the decoder that look at the source
    write what they look at as it is.
    """
    size, heads = model.config.d_kv, slice(model.config.d_kv)
    token, place = _orthogonal(size, model.config.d_model), _orthogonal(size, model.config.d_model)
    first = model.encoder.block[0].layer[0].SelfAttention
    first.q.weight[heads], first.k.weight[heads] = 0.0, 0.0
    first.relative_attention_bias.weight[_BEFORE, 0] = _SURE
    first.v.weight[heads], first.o.weight[:, heads] = token, place.T
    for block in model.decoder.block:
        cross = block.layer[1].EncDecAttention
        values = _orthogonal(*cross.v.weight.shape)
        cross.v.weight.copy_(values)
        cross.o.weight.copy_(values.T)
    cross = model.decoder.block[0].layer[1].EncDecAttention
    cross.q.weight[heads], cross.k.weight[heads] = _MATCH * token, place
    return model


def _orthogonal(rows: int, columns: int) -> Tensor:
    """(rows, columns) random, with rows or columns, whichever are fewer, of length 1 and orthogonal."""
    return torch.nn.init.orthogonal_(torch.empty(rows, columns))
