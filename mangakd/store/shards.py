"""One file of a store: an index of its sequences, and their records one after the other.

Both are arrays of numpy, the second one behind the first in the same file, so that one rename makes both visible. Sequences have
different numbers of records: a language model's have one for each target token.
Source: mangakd design, the store of teacher outputs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

INDEX = np.dtype([("key", "<i8"), ("records", "<i4")])


@dataclass(frozen=True)
class Shard:
    """index (S) of INDEX: the key of each sequence and its number of records. records (R): of all of them."""

    index: np.ndarray
    records: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray, records: np.ndarray) -> "Shard":
        index = np.empty(len(keys), INDEX)
        index["key"], index["records"] = keys, counts
        return cls(index, records)

    def write(self, file: BinaryIO) -> None:
        np.save(file, self.index)
        np.save(file, self.records)


def read_shard(path: Path) -> Shard:
    """The index in memory, the records memory-mapped. Raises ValueError, EOFError or OSError for a file that is no shard."""
    with path.open("rb") as file:
        index = np.lib.format.read_array(file, allow_pickle=False)
        np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
        records = np.memmap(path, dtype, "r", file.tell(), shape)
    return Shard(index, np.asarray(records))  # a plain view on the map: np.memmap adds microseconds to every row taken


def in_order(records: np.ndarray, counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Records of sequences that were computed in another order, put into the sequences' own.

    counts (n): records of each sequence, in the own order. order (n): place in the computed order → sequence.
    """
    computed = np.empty(len(order), np.int64)
    computed[order] = np.cumsum(counts[order]) - counts[order]  # where each sequence begins
    return records[np.repeat(computed - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())]
