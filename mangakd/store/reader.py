"""Looks up a teacher's outputs by content, in the time of a few cache misses.

Keyed by the hash of the tokens and not by position: shuffling, filtering, another batch size or another number of
ranks never give an example the outputs of another. Shards are memory-mapped, so all processes of a machine share one
copy, and the only thing held in memory is the index (16 bytes per example).
Source: mangakd design, the store of teacher outputs.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from mangakd.core.errors import UserError
from mangakd.store import journal
from mangakd.store.manifest import REFILL, Manifest


class StoreReader:
    """Read-only view of a store. `manifest` is what it was filled with; `len()` counts its records.

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
        self._logits = [shard["logits"] for shard in shards]
        self._shape = (codec.members, codec.outputs)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        keys = np.concatenate([np.empty(0, np.int64), *(shard["key"] for shard in shards)])
        # Stable, so that of two records with one key the first written is found.
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def __reduce__(self) -> tuple[type["StoreReader"], tuple[Path, Manifest, bool]]:
        # A worker maps the files itself; it need not hash them again, and a store replaced meanwhile is noticed.
        return StoreReader, (self.folder, self.manifest, False)

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """Logits (B, M, C) float32 of keys (B) int64. Raises UserError when any key is missing."""
        at, hits = self._find(keys)
        if not hits.all():
            raise UserError(
                f"{np.count_nonzero(~hits)} of {len(keys)} examples of this batch are not in the store {self.folder}, "
                f"which holds {len(self):,}: it was filled from other data or another tokenization. Add them: {REFILL}"
            )
        rows = self._order[at]
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        logits = np.empty((len(rows), *self._shape), np.float32)
        # Row by row: a shuffled batch touches about as many shards as it has rows, and indexing a shard with an array
        # costs ten times one row.
        for i, (shard, row) in enumerate(zip(shards.tolist(), (rows - self._starts[shards]).tolist(), strict=True)):
            logits[i] = self._logits[shard][row]
        return logits

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Those of keys (N) int64 that are not stored, in the given order."""
        return keys[~self._find(keys)[1]]

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (B) in the sorted keys, and which of them (B) bool really hold the key asked for."""
        if not len(self):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return at, self._keys[at] == keys
