"""A small encoder–decoder for tests and the quickstart, made on the spot: T5's shape, and a tokenizer trained on given texts.

`teacher.path=embedded_t5` is the one whose tokenizer was trained on the conversations of the made-up shop.

Its random weights are fine-tuned before they teach anything. The tokenizer is byte-level BPE, so that it reads any text, with T5's
special tokens: padding, which also starts the decoder, the end that each text gets, and the unknown token, which no text has.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast, T5Config

from mangakd.core.locks import made_once
from mangakd.models.embedded_tiny import digest, save, train_bpe
from mangakd.shop import manga_rewrites

NAME = "embedded_t5"
LONGEST = 512
SIZES: dict[str, Any] = {
    "d_model": 256, "d_kv": 64, "d_ff": 768, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 4, "dropout_rate": 0.0,
}  # fmt: skip
MARKS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def of_shop(cache: Path) -> Path:
    """The folder of the model that reads the shop's language."""
    turns = manga_rewrites.make_split("train")
    return folder([text for turn in turns for text in (turn.utterance, *turn.rewrites, turn.answer)], cache)


def folder(texts: Sequence[str], cache: Path, seed: int = 0) -> Path:
    """A folder with config, random weights and the tokenizer of `texts` in `cache`, made at the first call."""

    def make(folder: Path) -> None:
        tokenizer = train_tokenizer(texts)
        save(AutoModelForSeq2SeqLM, config(tokenizer), tokenizer, seed, folder)

    place = cache / "models" / f"t5-{digest(texts, SIZES, seed)}"
    return made_once(place, "making a tiny encoder–decoder", make)


def train_tokenizer(texts: Sequence[str]) -> Any:
    """The same tokenizer for the same texts; it ends each text with `</s>`, as T5's does."""
    tokenizer = train_bpe(texts, [*MARKS.values()])
    end = MARKS["eos_token"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **MARKS)


def config(tokenizer: Any) -> T5Config:
    """Of a model that reads with this tokenizer."""
    start = tokenizer.pad_token_id
    return T5Config(
        **SIZES, vocab_size=len(tokenizer), pad_token_id=start, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=start
    )
