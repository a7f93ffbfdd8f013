"""Texts tokenised once, in chunks on all cores, and cached as files (token_files.py)."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from mangakd.core import cpu
from mangakd.data.ahead import ahead
from mangakd.data.token_files import IDS, TYPES, Part, Progress, cached_file
from mangakd.data.tokens import Tokens
from mangakd.models.load import vocabulary_digest
from mangakd.runtime.tokenise import whole

_FORMAT = 3  # 1 read a special token that is written in a text as that token; 2 had one record batch
_CHUNK = 1 << 14  # characters: a core's encodings take about 1 MB, and a call's own cost does not show
_TEXT = "a text"


def tokenise(
    texts: Sequence[str],
    tokenizer: Any,
    max_length: int,
    cache: Path | None,
    progress: Progress | None = None,
    special: bool = True,
) -> Tokens:
    """Tokens of `texts`, truncated to max_length, from the cache folder if they were made before. cache: None keeps nothing.

    The tokens are those of mangakd.runtime.tokenise for a tokenizer of models.load: lone surrogates are replaced, special
    tokens in a text are text. Processes that tokenise the same texts at the same time wait for the first of them.

    progress(title, rows): a bar, which is called with the number of rows that were done. special: with the special tokens
    around each text; without them, `data/pairs.py` puts texts together.
    """
    if cache is None:
        return _here(texts, tokenizer, max_length, special)
    file = cache / f"{_name(texts, tokenizer, max_length, special)}.arrow"
    encode = partial(_encoded, texts, tokenizer, max_length, special)
    return cached_file(file, "tokenise", len(texts), encode, progress).tokens


def _here(texts: Sequence[str], tokenizer: Any, max_length: int, special: bool) -> Tokens:
    """In memory: a few texts, whose files would take longer than their tokens."""
    typed = special and makes_types(tokenizer)
    part = _encode(_truncating(tokenizer, max_length), special, typed, list(map(whole, texts)))
    starts = np.cumsum(part.lengths) - part.lengths
    ids = part.lists[IDS]
    if TYPES not in part.lists:
        return Tokens(ids, starts, part.lengths, part.keys)
    return Tokens(np.concatenate([ids, part.lists[TYPES]]), starts, part.lengths, part.keys, starts + len(ids))


def _name(texts: Sequence[str], tokenizer: Any, max_length: int, special: bool) -> str:
    """A hash of everything that the tokens depend on; chunk by chunk, as one JSON text of all texts would be their copy."""
    settings = [
        vocabulary_digest(tokenizer),
        tokenizer.split_special_tokens,
        tokenizer.truncation_side,
        makes_types(tokenizer) if special else "no special tokens",
    ]
    digest = hashlib.sha256(json.dumps([_FORMAT, max_length, *settings]).encode())
    for chunk in _chunks(texts):
        digest.update(json.dumps(chunk).encode())
    return digest.hexdigest()[:24]


def makes_types(tokenizer: Any) -> bool:
    """Whether token_type_ids are not all 0. One text shows it: post-processors give types by place, not by content."""
    return "token_type_ids" in tokenizer.model_input_names and any(tokenizer(_TEXT)["token_type_ids"])


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(whole(text))
        size += len(text) + 16  # a text without characters takes memory, too
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _encoded(
    texts: Sequence[str], tokenizer: Any, max_length: int, special: bool, advance: Callable[[int], object]
) -> Iterator[Part]:
    typed = special and makes_types(tokenizer)
    encode = partial(_encode, _truncating(tokenizer, max_length), special, typed)
    for part in ahead(encode, _chunks(texts), cpu.cores(), "tokenise"):
        advance(len(part.keys))
        yield part


def _truncating(tokenizer: Any, max_length: int) -> Any:
    """The Rust tokenizer, set up as tokenizer(texts, truncation=True, max_length=…) does, which calls the same code.

    It then turns all encodings into Python lists, which take most of its memory.
    """
    tokenizer.set_truncation_and_padding(
        PaddingStrategy.DO_NOT_PAD, TruncationStrategy.LONGEST_FIRST, max_length, 0, None, None
    )
    tokenizer.backend_tokenizer.encode_special_tokens = tokenizer.split_special_tokens
    return tokenizer.backend_tokenizer


def _encode(tokenizer: Any, special: bool, typed: bool, chunk: list[str]) -> Part:
    encodings = tokenizer.encode_batch_fast(chunk, add_special_tokens=special)  # without Python's lock
    types = {TYPES: [array("i", encoding.type_ids) for encoding in encodings]} if typed else None
    return Part.of([array("i", encoding.ids) for encoding in encodings], types)
