"""A tiny language model as a folder: Llama's shape with random weights, and the tokenizer of a chat template."""

from pathlib import Path
from typing import Any

from chat_samples import chat_tokenizer
from tiny_language import model


def save_exportable(folder: Path, kind: str = "llama", tokenizer: Any = None, **entries: Any) -> Path:
    """A language model whose rows are whole blocks of GGUF's Q8_0, with heads that differ, and the tokenizer of a chat
    template."""
    tokenizer = tokenizer or chat_tokenizer("chatml")
    tokenizer.split_special_tokens = False
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "max_position_embeddings": 256}
    model(kind, vocab_size=len(tokenizer), **{**sizes, **ids, **entries}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_language_model(folder: Path, kind: str = "chatml", seed: int = 0, positions: int = 128) -> Path:
    tokenizer = chat_tokenizer(kind)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model("llama", seed, vocab_size=len(tokenizer), max_position_embeddings=positions, **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
