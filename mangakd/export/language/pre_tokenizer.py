"""Finds `tokenizer.ggml.pre` by trying: the name whose code in llama.cpp splits texts as the student's tokenizer does.

The name decides the ids, and nothing else shows whether it is right: transformers' own reader of GGUF files ignores it. A
scratch file with the student's vocabulary and a model of a few numbers is opened by llama.cpp with one name after the other,
and the ids of some 200 texts are compared with the student's. What the tokenizer's own splits look like only decides which name
is tried first.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.export.checks import KEY
from mangakd.export.language.llama_engine import RUNTIME
from mangakd.export.language.process import EngineProcess

NAMES = (
    "gpt-2", "smollm", "qwen2", "llama-bpe", "tekken", "default", "gpt-4o", "llama4", "starcoder", "olmo", "stablelm2",
    "falcon", "mpt", "command-r", "dbrx", "deepseek-llm", "deepseek-coder", "deepseek-v3", "refact", "codeshell",
    "bloom", "viking", "poro-chat", "gpt3-finnish", "chatglm-bpe", "jais", "exaone", "exaone4", "minerva-7b", "megrez",
    "superbpe", "trillion", "bailingmoe", "seed-coder", "hunyuan", "kimi-k2", "grok-2", "granite-docling", "minimax-m2",
    "afmoe", "qwen35", "tiny_aya", "youtu",
)  # fmt: skip
"""Of llama.cpp; those of one way to split have one name here."""
_SIGNS = (  # part of the pre-tokenizer in tokenizer.json → names that are tried first
    ('"Digits"', ("smollm", "starcoder", "refact", "command-r")),
    (r"\\p{N}{1,3}", ("llama-bpe", "gpt-4o", "dbrx", "deepseek-v3")),
    (r"\\p{N}|", ("qwen2", "stablelm2", "tekken")),
)
Open = Callable[[str], EngineProcess]


def find(tokenizer: Any, texts: Sequence[str], open_with: Open) -> tuple[str, dict[str, int]]:
    """The name, and for each name that was tried the number of texts with other ids.

    tokenizer: which reads names of special tokens as text. open_with: name → the engine of a file with this name. Raises
    UserError where none of NAMES gives the student's ids.
    """
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    tried: dict[str, int] = {}
    for name in ranked(tokenizer):
        try:
            with open_with(name) as engine:
                ids = engine.ids(texts, False)
        except UserError:  # this llama.cpp does not know the name
            continue
        tried[name] = sum(list(own) != list(right) for own, right in zip(ids, expected, strict=True))
        if not tried[name]:
            return name, tried
    nearest = min(tried, key=lambda name: tried[name]) if tried else "none"
    raise UserError(
        f"{KEY} has a tokenizer that llama.cpp splits in no known way: of {len(texts)} texts {tried.get(nearest, len(texts))} "
        f"have other ids with the nearest one ({nearest}). Export merged alone."
    )


def ranked(tokenizer: Any) -> Iterator[str]:
    """NAMES, with those first that the tokenizer's own splits suggest."""
    splits = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()).get("pre_tokenizer"))
    first = [name for sign, names in _SIGNS if sign in splits for name in names]
    yield from dict.fromkeys((*first, *NAMES))


def opener(write: Callable[[Path, str], None], work: Path) -> Open:
    """write: (file, name) → a file with this name."""

    def open_with(name: str) -> EngineProcess:
        file = work / "vocabulary.gguf"
        write(file, name)
        return EngineProcess("llama.cpp", file, {"threads": 1, **RUNTIME}, 64)

    return open_with
