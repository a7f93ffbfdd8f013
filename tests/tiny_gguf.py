"""A tiny random Llama as a GGUF, and folders with its language.json, written by the `gguf` package and not by mangakd's export.

The vocabulary is the 256 bytes and three special tokens. Only printable ASCII has logits that are not 0, so that a greedy answer
is text and never ends by itself.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, HIDDEN, HEADS, INNER, CONTEXT = 2, 64, 4, 96, 65536
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_gguf(file: Path, template: str | None = CHATML, seed: int = 0) -> Path:
    import gguf

    random = np.random.default_rng(seed)
    tokens = [*SPECIAL, *_bytes()]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * 256)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)

    def matrix(name: str, rows: int, columns: int) -> np.ndarray:
        weights = (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)
        if name == "output":
            weights[: len(SPECIAL) + ord(" ")] = weights[len(SPECIAL) + ord("~") + 1 :] = 0
        writer.add_tensor(f"{name}.weight", weights)
        return weights

    matrix("token_embd", len(tokens), HIDDEN)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", HIDDEN, HIDDEN)
        for name, rows, columns in (
            ("ffn_gate", INNER, HIDDEN),
            ("ffn_up", INNER, HIDDEN),
            ("ffn_down", HIDDEN, INNER),
        ):
            matrix(f"blk.{layer}.{name}", rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(HIDDEN, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    matrix("output", len(tokens), HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def language_folder(folder: Path, template: str | None = CHATML, **entries: Any) -> Path:
    """An exported folder with language.json. entries: of it."""
    folder.mkdir(parents=True)
    return describe(folder, write_gguf(folder / "model.gguf", template), **({"chat": template is not None} | entries))


def describe(folder: Path, model: Path, **entries: Any) -> Path:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    content = {
        "format": 1, "variant": "gguf_f32", "engine": "llama.cpp", "model": model.name, "files": {model.name: digest},
        "context": 4096, "chat": True, "runtime": {"threads": 1}, "source": {}, "versions": {}, "metrics": {},
    }  # fmt: skip
    (folder / "language.json").write_text(json.dumps(content | entries))
    return folder


@cache
def _bytes() -> tuple[str, ...]:
    """The characters by which GPT-2's byte-level BPE writes the bytes 0 to 255."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in plain else next(others)) for byte in range(256))
