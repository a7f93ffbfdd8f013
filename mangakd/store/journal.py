"""Which shards are finished. A shard counts from the moment its line is in the journal, and not before.

One JSON line per shard: name, rows, sha256. The line is written after the shard is safe on disk, so a kill at any
moment leaves either a finished shard or one that is written again. Lines that cannot be read are skipped: their shards
count as not written.
Source: mangakd design, the store of teacher outputs.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mangakd.core.errors import UserError
from mangakd.store.files import append_line, sha256, write_atomic
from mangakd.store.manifest import REFILL
from mangakd.store.shards import INDEX, Shard, read_shard

JOURNAL_FILE = "journal.jsonl"
_SHARD = re.compile(r"shard-\d{5,}\.npy")


@dataclass(frozen=True)
class Entry:
    """One finished shard: file name, number of sequences, hex digest of the file."""

    name: str
    rows: int
    sha256: str

    def line(self) -> str:
        return json.dumps(asdict(self))


class DamagedShard(UserError):
    """A journaled shard that is not what was written."""


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.npy"


def read(folder: Path) -> list[Entry]:
    """The finished shards in the order they were written; empty without a journal."""
    path = folder / JOURNAL_FILE
    if not path.exists():
        return []
    entries = (_parse(line) for line in path.read_bytes().splitlines())
    return [entry for entry in entries if entry is not None]


def _parse(line: bytes) -> Entry | None:
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
    return entry if _SHARD.fullmatch(entry.name) else None


def append(folder: Path, entry: Entry) -> None:
    """Declare a shard finished."""
    append_line(folder / JOURNAL_FILE, entry.line())


def restore(folder: Path, entries: list[Entry]) -> None:
    """Make the journal hold exactly `entries`: a line appended to a truncated one would be lost with it."""
    path = folder / JOURNAL_FILE
    content = "".join(entry.line() + "\n" for entry in entries).encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomic(path, lambda file: file.write(content))


def open_shard(folder: Path, entry: Entry, record: np.dtype, verify: bool) -> Shard:
    """One shard of records of dtype `record`, memory-mapped and read-only.

    verify: hash the whole file first. Raises DamagedShard for a missing, truncated or (verified) altered file.
    """
    path = folder / entry.name
    try:
        if verify and sha256(path) != entry.sha256:
            raise ValueError("its sha256 is not the one in the journal")
        shard = read_shard(path)
        dtypes = (shard.index.dtype, shard.records.dtype)
        if dtypes != (INDEX, record) or len(shard.index) != entry.rows:
            raise ValueError(f"it holds {len(shard.index)} sequences with records of {shard.records.dtype}")
        if shard.index["records"].sum() != len(shard.records):
            raise ValueError(
                f"its sequences own {shard.index['records'].sum()} records, and it holds {len(shard.records)}"
            )
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise DamagedShard(
            f"shard {entry.name} of the store {folder} is damaged ({error}). Write it again: {REFILL}"
        ) from error
    return shard
