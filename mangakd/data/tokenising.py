"""Texts tokenised once, in chunks on all cores, and cached as Arrow files that are memory-mapped.

Neither tokenising nor reading holds the tokens of all texts: a chunk of texts becomes part of a record batch, a full record
batch goes to the file, and `Tokens.ids` is a view of the mapped file. The lists are Arrow's LargeList, whose offsets are int64,
so that no number of texts or tokens overflows them. A column for each text would make a schema as long as the data.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from mangakd.core import cpu
from mangakd.core.locks import waiting_lock
from mangakd.data.ahead import ahead
from mangakd.data.tokens import Tokens
from mangakd.models.load import vocabulary_digest
from mangakd.runtime.tokenise import whole

log = logging.getLogger(__name__)
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
_FORMAT = 3  # 1 read a special token that is written in a text as that token; 2 had one record batch
_CHUNK = 1 << 14  # characters: a core's encodings take about 1 MB, and a call's own cost does not show
_RECORD_BATCH = 1 << 20  # tokens and texts
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
    if (tokens := _cached(file)) is not None:
        return tokens
    with waiting_lock(cache / "locks" / file.stem, "tokenising the same texts"):
        if (tokens := _cached(file)) is None:
            bar = nullcontext(_ignore) if progress is None else progress("tokenise", len(texts))
            with bar as advance:
                _write(file, _encoded(texts, tokenizer, max_length, special, advance))
            tokens = _read(file)
    return tokens


def _here(texts: Sequence[str], tokenizer: Any, max_length: int, special: bool) -> Tokens:
    """In memory: a few texts, whose files would take longer than their tokens."""
    typed = special and makes_types(tokenizer)
    part = _encode(_truncating(tokenizer, max_length), special, typed, list(map(whole, texts)))
    starts = np.cumsum(part.lengths) - part.lengths
    ids = part.ids if part.types is None else np.concatenate([part.ids, part.types])
    return Tokens(ids, starts, part.lengths, part.keys, None if part.types is None else starts + len(part.ids))


def _ignore(rows: int) -> None:
    """Without a bar."""


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


@dataclass(frozen=True)
class _Part:
    """Tokens of consecutive texts. ids, types: flat int32. lengths, keys: int64."""

    ids: np.ndarray
    lengths: np.ndarray
    keys: np.ndarray
    types: np.ndarray | None


def _encoded(
    texts: Sequence[str], tokenizer: Any, max_length: int, special: bool, advance: Callable[[int], object]
) -> Iterator[pa.RecordBatch]:
    typed = special and makes_types(tokenizer)
    encode = partial(_encode, _truncating(tokenizer, max_length), special, typed)
    parts: list[_Part] = []
    size = 0
    for part in ahead(encode, _chunks(texts), cpu.cores(), "tokenise"):
        parts.append(part)
        size += len(part.ids) + len(part.keys)
        advance(len(part.keys))
        if size >= _RECORD_BATCH:
            yield _record_batch(parts)
            parts, size = [], 0
    if parts:
        yield _record_batch(parts)


def _truncating(tokenizer: Any, max_length: int) -> Any:
    """The Rust tokenizer, set up as tokenizer(texts, truncation=True, max_length=…) does, which calls the same code.

    It then turns all encodings into Python lists, which take most of its memory.
    """
    tokenizer.set_truncation_and_padding(
        PaddingStrategy.DO_NOT_PAD, TruncationStrategy.LONGEST_FIRST, max_length, 0, None, None
    )
    tokenizer.backend_tokenizer.encode_special_tokens = tokenizer.split_special_tokens
    return tokenizer.backend_tokenizer


def _encode(tokenizer: Any, special: bool, typed: bool, chunk: list[str]) -> _Part:
    encodings = tokenizer.encode_batch_fast(chunk, add_special_tokens=special)  # without Python's lock
    rows = [array("i", encoding.ids) for encoding in encodings]
    keys = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
    types = _flat(array("i", encoding.type_ids) for encoding in encodings) if typed else None
    return _Part(_flat(rows), np.fromiter(map(len, rows), np.int64), np.frombuffer(keys, "<i8"), types)


def _flat(rows: Iterable["array[int]"]) -> np.ndarray:
    return np.frombuffer(b"".join(rows), np.int32)


def _record_batch(parts: Sequence[_Part]) -> pa.RecordBatch:
    offsets = np.concatenate([[0], np.cumsum(_gather(part.lengths for part in parts))])
    ids, keys = _gather(part.ids for part in parts), _gather(part.keys for part in parts)
    columns = {"input_ids": pa.LargeListArray.from_arrays(offsets, ids), "key": pa.array(keys)}
    if types := [part.types for part in parts if part.types is not None]:
        columns["token_type_ids"] = pa.LargeListArray.from_arrays(offsets, _gather(types))
    return pa.RecordBatch.from_pydict(columns)


def _write(file: Path, batches: Iterator[pa.RecordBatch]) -> None:
    """Whoever holds the lock of `file` is alone, so a scratch file left by a killed process is written over."""
    scratch = file.with_suffix(".tmp")
    try:
        first = next(batches)
        with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def _cached(file: Path) -> Tokens | None:
    """None where the file is missing or damaged; a damaged file is deleted."""
    if not file.is_file():
        return None
    try:
        return _read(file)
    except (pa.ArrowException, OSError) as error:
        log.warning("the cached tokens %s are damaged (%s); they are made again.", file, str(error).splitlines()[0])
        file.unlink(missing_ok=True)
        return None


def _read(file: Path) -> Tokens:
    """Only starts, lengths and keys (24 bytes a text) are read into memory."""
    content = pa.memory_map(str(file)).read_buffer()
    reader = pa.ipc.open_file(content)
    batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    for batch in batches:
        batch.validate(full=True)  # offsets of a damaged file would lead out of it
    typed = "token_type_ids" in reader.schema.names
    return Tokens(
        np.frombuffer(content, np.int32, content.size // 4),
        _gather(_starts(content, batch["input_ids"]) for batch in batches),
        _gather(np.diff(batch["input_ids"].offsets) for batch in batches),
        _gather(batch["key"].to_numpy() for batch in batches),
        _gather(_starts(content, batch["token_type_ids"]) for batch in batches) if typed else None,
    )


def _gather(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([*arrays])


def _starts(content: pa.Buffer, column: pa.LargeListArray) -> np.ndarray:
    """Where each text of a mapped column begins, counted in int32 from the beginning of the file."""
    values = column.values.buffers()[1]
    return (values.address - content.address) // 4 + column.offsets.to_numpy()[:-1]
