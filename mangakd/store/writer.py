"""Fills a store with a teacher's outputs, so that a kill costs at most one shard.

Shards are cut from the caller's order, which is deterministic, and every finished shard is journaled. What is left
after a kill therefore starts at a shard boundary and is cut in the same places: the resumed store is byte-identical.
Source: mangakd design, the store of teacher outputs.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import TracebackType

import numpy as np

from mangakd.core.errors import UserError
from mangakd.store import journal
from mangakd.store.files import write_atomic, writer_lock
from mangakd.store.manifest import MANIFEST_FILE, Manifest
from mangakd.store.shards import INDEX, Shard

log = logging.getLogger(__name__)

Compute = Callable[[np.ndarray], np.ndarray]
"""positions (n) int64 into the caller's keys → the codec's records (R) of these sequences, one sequence after the other."""
SHARD_ROWS, SHARD_BYTES = 8192, 2**27  # at most, of a shard; a sequence is never split


@dataclass(frozen=True)
class Plan:
    """What a capture would write: number of sequences, and of their records; bytes of a record.

    of_tokens: whether a record is that of a target token.
    """

    examples: int
    records: int
    record_bytes: int
    of_tokens: bool = False

    def __add__(self, other: "Plan") -> "Plan":
        """Both, of one store."""
        return replace(self, examples=self.examples + other.examples, records=self.records + other.records)

    @property
    def total_bytes(self) -> int:
        return self.examples * INDEX.itemsize + self.records * self.record_bytes

    def __str__(self) -> str:
        total = _size(self.total_bytes)
        if self.of_tokens:
            return f"{self.records:,} target tokens × {self.record_bytes:,} bytes, with an index {total}"
        return f"{self.examples:,} examples × {self.record_bytes + INDEX.itemsize:,} bytes = {total}"


class StoreWriter:
    """`with StoreWriter(folder, manifest) as writer: writer.capture(keys, compute)`.

    Entering creates the folder, takes its lock and checks what is there. Raises UserError when another process is
    writing, or when the store was filled with something else. Damaged shards are dropped and captured again.
    """

    def __init__(self, folder: str | Path, manifest: Manifest, shard_rows: int = SHARD_ROWS) -> None:
        """shard_rows: sequences per file; what a kill can cost, and one file descriptor per shard when reading."""
        self.folder = Path(folder).absolute()
        self.manifest = manifest
        self.shard_rows = shard_rows
        self._names: set[str] = set()
        self._keys: list[np.ndarray] = []
        self._held = ExitStack()

    def __enter__(self) -> "StoreWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(writer_lock(self.folder))
            self._check_manifest()
            self._take_stock()
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    @property
    def stored(self) -> np.ndarray:
        """Keys of all finished shards, sorted, int64."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *self._keys]))

    def plan(self, keys: np.ndarray, counts: np.ndarray | None = None) -> Plan:
        """What `capture(keys, …)` would write. keys: (N) int64, repeats allowed. counts (N): records of each; None: one."""
        return self._plan(self._fresh(keys), counts)

    def capture(
        self, keys: np.ndarray, compute: Compute, progress: Callable[[int], None] | None = None,
        counts: np.ndarray | None = None,
    ) -> int:  # fmt: skip
        """Store every key that is not stored yet, in the given order; returns how many were written.

        keys: (N) int64; a repeated key is computed once, where it comes first. compute: called once per shard, in
        order, and cuts its own batches, always the same way. progress: told the rows of each finished shard. counts (N):
        the number of each sequence's records; None: one.
        Raises UserError when the disk is too small (before anything is written) or a number is not finite.
        """
        positions = self._fresh(keys)
        self._check_disk(self._plan(positions, counts))
        counts = np.ones(len(keys), np.int64) if counts is None else counts
        for rows in self._shards(positions, counts):
            self._write(keys[rows], counts[rows], self._checked(compute(rows), counts[rows], rows))
            if progress is not None:
                progress(len(rows))
        return len(positions)

    def _plan(self, positions: np.ndarray, counts: np.ndarray | None) -> Plan:
        records = len(positions) if counts is None else int(counts[positions].sum())
        return Plan(len(positions), records, self.manifest.record_bytes, self.manifest.of_tokens)

    def _shards(self, positions: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
        """Positions of each shard, cut from the front, so that what a kill leaves is cut in the same places."""
        room = max(SHARD_BYTES // self.manifest.record_bytes, 1)
        ends = np.cumsum(counts[positions])
        start = 0
        while start < len(positions):
            before = ends[start - 1] if start else 0
            fit = int(np.searchsorted(ends, before + room, side="right"))
            end = min(max(fit, start + 1), start + self.shard_rows)
            yield positions[start:end]
            start = end

    def _checked(self, records: np.ndarray, counts: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Raises UserError for another number of records, and for flaws, naming positions of sequences."""
        if len(records) != counts.sum():
            raise UserError(
                f"the teacher gave {len(records)} answers for {len(positions)} sequences that have {counts.sum()}. Check the "
                "teacher's tokenizer and `teacher.store`."
            )
        bad = np.unique(np.repeat(positions, counts)[self.manifest.codec.flaws(records)])
        if len(bad):
            places = ", ".join(map(str, bad[:10])) + (", …" if len(bad) > 10 else "")
            dtype = self.manifest.dtype
            raise UserError(
                f"the teacher's answers are NaN or inf as {dtype} for {len(bad)} of {len(positions)} examples, at positions "
                f"{places}; nothing of this shard was written. Run the teacher in float32, look at those examples"
                + (", or set teacher.stored_dtype=float32." if dtype == "float16" else ".")
            )
        return records

    def _fresh(self, keys: np.ndarray) -> np.ndarray:
        """Positions of the first occurrences of keys not stored, ascending."""
        unique, first = np.unique(keys, return_index=True)
        return np.sort(first[np.isin(unique, self.stored, invert=True)])

    def _write(self, keys: np.ndarray, counts: np.ndarray, records: np.ndarray) -> None:
        name = next(name for name in map(journal.shard_name, count()) if name not in self._names)
        digest = write_atomic(self.folder / name, Shard.of(keys, counts, records).write)
        journal.append(self.folder, journal.Entry(name, len(keys), digest))
        self._names.add(name)
        self._keys.append(keys)

    def _check_manifest(self) -> None:
        if (self.folder / MANIFEST_FILE).exists():
            Manifest.load(self.folder).compare(self.manifest, self.folder)
        elif (self.folder / journal.JOURNAL_FILE).exists():
            raise UserError(
                f"{self.folder} has a {journal.JOURNAL_FILE} but no {MANIFEST_FILE}: nobody knows what it holds. "
                "Delete the folder, or use another one with `teacher.store`."
            )
        else:
            self.manifest.save(self.folder)

    def _take_stock(self) -> None:
        """Learn what is stored; drop damaged shards, and what a kill left of the journal's last line."""
        entries, self._keys = [], []
        for entry in journal.read(self.folder):
            try:
                shard = journal.open_shard(self.folder, entry, self.manifest.codec.record, verify=True)
            except journal.DamagedShard as error:
                log.warning("%s This is done now.", error)
                continue
            entries.append(entry)
            self._keys.append(shard.index["key"])
        journal.restore(self.folder, entries)
        self._names = {entry.name for entry in entries}

    def _check_disk(self, plan: Plan) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < plan.total_bytes:
            raise UserError(
                f"the store {self.folder} needs {_size(plan.total_bytes)} more ({plan}) and the disk has {_size(free)} "
                f"free. Free some, use a folder on another disk with `teacher.store`, or store less of each answer "
                "(teacher.stored_dtype=float16, teacher.k, teacher.draws)."
            )


def _size(number: float) -> str:
    """Bytes in words: `1.5 GB` is 1.5 · 10⁹ bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
