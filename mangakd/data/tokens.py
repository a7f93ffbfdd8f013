"""Texts tokenised once and cached as Arrow: flat token ids that are memory-mapped, and a content key for each text.

The key, a hash of the token ids, is how the store of teacher outputs finds its records: it does not depend on the order,
the batch or the world size, and it changes with the tokenizer, the truncation and the text.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mangakd.models.load import vocabulary_digest
from mangakd.runtime.tokenise import whole

log = logging.getLogger(__name__)
_FORMAT = 2  # 1 read a special token that is written in a text as that token


@dataclass(frozen=True)
class Tokens:
    """ids: all token ids in a row, int32. offsets: (N + 1), text i is ids[offsets[i]:offsets[i+1]]. keys: (N) int64."""

    ids: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.keys)

    def pad(self, positions: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """(input_ids, attention_mask), each (B, T) int64, T the longest of these texts."""
        starts, lengths = self.offsets[positions], self.lengths[positions]
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]
        ids = np.full(mask.shape, pad_id, dtype=np.int64)
        ids[mask] = self.ids[(starts[:, None] + columns)[mask]]
        return ids, mask.astype(np.int64)


def concatenated(parts: Sequence[Tokens]) -> Tokens:
    lengths = np.concatenate([part.lengths for part in parts])
    ids = np.concatenate([part.ids[part.offsets[0] : part.offsets[-1]] for part in parts])
    return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([part.keys for part in parts]))


def tokenise(texts: list[str], tokenizer: Any, max_length: int, cache: Path) -> Tokens:
    """Tokens of `texts`, truncated to max_length, from the cache folder where they were made before.

    They are those of mangakd.runtime.tokenise for a tokenizer of models.load: lone surrogates are replaced, special tokens in a
    text are text.
    """
    texts = [whole(text) for text in texts]
    content = [_FORMAT, vocabulary_digest(tokenizer), tokenizer.split_special_tokens, max_length, texts]
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
    file = cache / f"{name}.arrow"
    if not file.is_file():
        _write(file, _encode(texts, tokenizer, max_length))
    try:
        table = _read(file)
    except (pa.ArrowException, OSError) as error:
        log.warning("the kept tokens %s are damaged (%s); made again.", file, str(error).splitlines()[0])
        _write(file, _encode(texts, tokenizer, max_length))
        table = _read(file)
    column = table["input_ids"].combine_chunks()
    ids = column.values.to_numpy()
    return Tokens(ids, column.offsets.to_numpy().astype(np.int64), table["key"].to_numpy())


def _encode(texts: list[str], tokenizer: Any, max_length: int) -> pa.Table:
    rows = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
    arrays = [np.asarray(row, dtype=np.int32) for row in rows]
    keys = [int.from_bytes(hashlib.blake2b(a.tobytes(), digest_size=8).digest(), "little", signed=True) for a in arrays]
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(arrays)))
    return pa.table({"input_ids": column, "key": pa.array(keys, pa.int64())})


def _read(file: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def _write(file: Path, table: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}.tmp")
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    scratch.replace(file)
