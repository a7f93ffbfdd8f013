"""A tiny language model as a folder: Llama's shape with random weights, and the tokenizer of a chat template."""

from pathlib import Path

from chat_samples import chat_tokenizer
from tiny_language import model


def save_language_model(folder: Path, kind: str = "chatml", seed: int = 0, positions: int = 128) -> Path:
    tokenizer = chat_tokenizer(kind)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model("llama", seed, vocab_size=len(tokenizer), max_position_embeddings=positions, **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
