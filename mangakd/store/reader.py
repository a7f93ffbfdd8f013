"""Looks up a teacher's outputs by content, in the time of a few cache misses.

Keyed by the hash of the tokens and not by position: shuffling, filtering, another batch size or another number of
ranks never give an example the outputs of another. Shards are memory-mapped, so all processes of a machine share one
copy, and the only thing held in memory is the index (about 30 bytes per sequence).
Source: mangakd design, the store of teacher outputs.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from mangakd.core.errors import UserError
from mangakd.store import journal
from mangakd.store.manifest import REFILL, Manifest
from mangakd.store.shards import INDEX


class StoreReader:
    """Read-only view of a store. `manifest` is what it was filled with; `len()` counts its sequences.

    expected: what this run needs, compared field by field; None takes the store as it is. allow_mismatch: fields that
    may differ. verify: hash every shard on opening (about a second per GB).
    Raises UserError for a missing store, a mismatch or a damaged shard, each with the command that fixes it.
    """

    def __init__(
        self,
        folder: str | Path,
        expected: Manifest | None = None,
        verify: bool = True,
        allow_mismatch: Collection[str] = (),
    ) -> None:
        self.folder = Path(folder).absolute()
        self.manifest = Manifest.load(self.folder)
        if expected is not None:
            self.manifest.compare(expected, self.folder, allow_mismatch)
        codec = self.manifest.codec
        entries = journal.read(self.folder)
        shards = [journal.open_shard(self.folder, entry, codec.record, verify) for entry in entries]
        index = np.concatenate([np.empty(0, INDEX), *(shard.index for shard in shards)])
        self._codec, self._records = codec, [shard.records for shard in shards]
        self._firsts = np.cumsum([0, *map(len, self._records)])  # of each shard, among all records
        self._ends = np.cumsum(index["records"], dtype=np.int64)  # of each sequence
        # Stable, so that of two sequences with one key the first written is found.
        self._order = np.argsort(index["key"], kind="stable")
        self._keys = index["key"][self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def __reduce__(self) -> tuple[type["StoreReader"], tuple[Path, Manifest, bool]]:
        # A worker maps the files itself; it need not hash them again, and a store replaced meanwhile is noticed.
        return StoreReader, (self.folder, self.manifest, False)

    def lookup(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        """Field of the codec → (R, …), the records of the sequences with keys (B) int64, one sequence after the other.

        Raises UserError when any key is missing.
        """
        at, hits = self._find(keys)
        if not hits.all():
            raise UserError(
                f"{np.count_nonzero(~hits)} of {len(keys)} examples of this batch are not in the store {self.folder}, "
                f"which holds {len(self):,}: it was filled from other data or another tokenization. Add them: {REFILL}"
            )
        rows = self._order[at]
        starts = np.where(rows > 0, self._ends[rows - 1], 0)
        counts = self._ends[rows] - starts
        shards = np.searchsorted(self._firsts, starts, side="right") - 1
        records = np.empty(counts.sum(), self._codec.record)
        # Sequence by sequence: a shuffled batch touches about as many shards as it has rows, and indexing a shard with an array
        # costs ten times one slice.
        place = 0
        for shard, start, count in zip(
            shards.tolist(), (starts - self._firsts[shards]).tolist(), counts.tolist(), strict=True
        ):
            records[place : place + count] = self._records[shard][start : start + count]
            place += count
        return self._codec.decode(records)

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Those of keys (N) int64 that are not stored, in the given order."""
        return keys[~self._find(keys)[1]]

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (B) in the sorted keys, and which of them (B) bool really hold the key asked for."""
        if not len(self):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return at, self._keys[at] == keys
