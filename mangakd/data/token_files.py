"""Files of tokens: Arrow files that are written once and memory-mapped.

Neither writing nor reading holds the tokens of all texts: a chunk of texts becomes part of a record batch, a full record batch
goes to the file, and `Tokens.ids` is a view of the mapped file. The lists are Arrow's LargeList, whose offsets are int64, so
that no number of texts or tokens overflows them. A column for each text would make a schema as long as the data.
"""

import hashlib
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from mangakd.core.locks import waiting_lock
from mangakd.core.outputs import TARGETS
from mangakd.data.tokens import Tokens

log = logging.getLogger(__name__)
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
IDS, TYPES, KEY = "input_ids", "token_type_ids", "key"
_RECORD_BATCH = 1 << 20  # tokens and texts


@dataclass(frozen=True)
class Part:
    """Tokens of consecutive texts. lists: IDS and other columns of one number a token, flat int32. lengths, keys: int64.

    numbers: columns of one number a text, int64.
    """

    lists: Mapping[str, np.ndarray]
    lengths: np.ndarray
    keys: np.ndarray
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: "Sequence[array[int]]",
        more: "Mapping[str, Sequence[array[int]]] | None" = None,
        numbers: Mapping[str, Sequence[int]] | None = None,
    ) -> "Part":
        """rows: the token ids of each text. more: other columns of one number a token. A key is a hash of ids and targets."""
        lists = {IDS: rows, **(more or {})}
        hashed = zip(rows, lists[TARGETS], strict=True) if TARGETS in lists else ((row,) for row in rows)
        keys = b"".join(hashlib.blake2b(b"".join(each), digest_size=8).digest() for each in hashed)
        return cls(
            {name: np.frombuffer(b"".join(each), np.int32) for name, each in lists.items()},
            np.fromiter(map(len, rows), np.int64),
            np.frombuffer(keys, "<i8"),
            {name: np.array(each, np.int64) for name, each in (numbers or {}).items()},
        )


@dataclass(frozen=True)
class TokenFile:
    """What a file holds. numbers: name → (N) int64, in memory."""

    tokens: Tokens
    numbers: Mapping[str, np.ndarray]


def cached_file(
    file: Path,
    title: str,
    size: int,
    make: Callable[[Callable[[int], object]], Iterator[Part]],
    progress: Progress | None = None,
) -> TokenFile:
    """The content of `file`, made first where it is missing or damaged. Processes that want the same file wait for the first.

    title, size: of the bar. make(advance): the parts; it calls advance with the number of texts that were done.
    """
    if (content := _cached(file)) is not None:
        return content
    with waiting_lock(file.parent / "locks" / file.stem, "tokenising the same texts"):
        if (content := _cached(file)) is None:
            with nullcontext(_ignore) if progress is None else progress(title, size) as advance:
                _write(file, _record_batches(make(advance)))
            content = _read(file)
    return content


def _ignore(rows: int) -> None:
    """Without a bar."""


def _record_batches(parts: Iterator[Part]) -> Iterator[pa.RecordBatch]:
    waiting: list[Part] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part.lists[IDS]) + len(part.keys)
        if size >= _RECORD_BATCH:
            yield _record_batch(waiting)
            waiting, size = [], 0
    if waiting:
        yield _record_batch(waiting)


def _record_batch(parts: Sequence[Part]) -> pa.RecordBatch:
    offsets = np.concatenate([[0], np.cumsum(_gather(part.lengths for part in parts))])
    lists = {
        name: pa.LargeListArray.from_arrays(offsets, _gather(part.lists[name] for part in parts))
        for name in parts[0].lists
    }
    numbers = {name: pa.array(_gather(part.numbers[name] for part in parts)) for name in parts[0].numbers}
    return pa.RecordBatch.from_pydict({**lists, KEY: pa.array(_gather(part.keys for part in parts)), **numbers})


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


def _cached(file: Path) -> TokenFile | None:
    """None where the file is missing or damaged; a damaged file is deleted."""
    if not file.is_file():
        return None
    try:
        return _read(file)
    except (pa.ArrowException, OSError) as error:
        log.warning("the cached tokens %s are damaged (%s); they are made again.", file, str(error).splitlines()[0])
        file.unlink(missing_ok=True)
        return None


def _read(file: Path) -> TokenFile:
    """Only starts, lengths, keys and numbers (8 bytes each) are read into memory."""
    content = pa.memory_map(str(file)).read_buffer()
    reader = pa.ipc.open_file(content)
    batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    for batch in batches:
        batch.validate(full=True)  # offsets of a damaged file would lead out of it
    lists = {
        each.name: _gather(_starts(content, batch[each.name]) for batch in batches)
        for each in reader.schema
        if pa.types.is_large_list(each.type)
    }
    tokens = Tokens(
        np.frombuffer(content, np.int32, content.size // 4),
        lists[IDS],
        _gather(np.diff(batch[IDS].offsets) for batch in batches),
        _gather(batch[KEY].to_numpy() for batch in batches),
        lists.get(TYPES),
        lists.get(TARGETS),
    )
    names = [each.name for each in reader.schema if pa.types.is_integer(each.type) and each.name != KEY]
    return TokenFile(tokens, {name: _gather(batch[name].to_numpy() for batch in batches) for name in names})


def _gather(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([*arrays])


def _starts(content: pa.Buffer, column: pa.LargeListArray) -> np.ndarray:
    """Where each text of a mapped column begins, counted in int32 from the beginning of the file."""
    values = column.values.buffers()[1]
    return (values.address - content.address) // 4 + column.offsets.to_numpy()[:-1]
