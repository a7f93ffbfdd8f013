"""`Look`: finds a recorded file, hashes it, and says which part of a changed file changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from mangakd.data.file_parts import Parts, parts_of
from mangakd.runs.audit.finding import Finding, State
from mangakd.runs.files_on_record import Record, other_places, own_places
from mangakd.store.files import sha256

SHOWN = 12  # hex digits of a hash in a message


@dataclass(frozen=True)
class Look:
    """folder: relative paths are seen from it. search: folders to look in for files that were moved.

    parts: sha256 of a file → digests of its parts, as provenance_parts.json has them.
    """

    folder: Path
    search: Sequence[Path] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)

    def at(self, folder: Path, parts: Mapping[str, Any] | None = None) -> "Look":
        """parts: more of them."""
        return replace(self, folder=folder, parts={**self.parts, **(parts or {})})

    def place(self, record: Record) -> Path | None:
        """Where the file is: where it was, with whatever content, else a place of moved files with the recorded hash."""
        if (place := next((each for each in own_places(record, self.folder) if each.is_file()), None)) is not None:
            return place
        moved = (each for each in other_places(record, self.folder, self.search) if each.is_file())
        return next((each for each in moved if record.get("sha256") in (None, digest_of(each))), None)

    def file(self, record: Record, name: str = "") -> Finding:
        """record: path, relative, sha256. name: of the finding; the path where it is left out."""
        path, digest = record.get("path") or record.get("relative"), record.get("sha256")
        name = name or str(path)
        if not path or not digest:
            return Finding(name, State.UNRECORDED, "no hash")
        place = self.place(record)
        if place is None:
            others = [each for each in other_places(record, self.folder, self.search) if each.is_file()]
            words = f"not there, and {others[0]} has another hash" if others else "not there, nor beside"
            return Finding(name, State.MISSING, f"{words}; search=[…] names folders to look in")
        moved = "" if place in own_places(record, self.folder) else f"at {place}"
        if (now := digest_of(place)) == digest:
            return Finding(name, State.VERIFIED, moved)
        entry = self.parts.get(digest)
        return Finding(name, State.CHANGED, _change(entry, digest, place, now))


def digest_of(file: Path) -> str:
    """sha256, once for each content: several records may name one file."""
    status = file.stat()
    return _digest(file, status.st_mtime_ns, status.st_size)


@cache
def _digest(file: Path, time: int, size: int) -> str:
    return sha256(file)


def _change(entry: Any, digest: str, file: Path, now: str) -> str:
    """Which parts of a file changed; its hashes where no parts were recorded."""
    parts = parts_of(file) if entry else None
    words = Parts.read(entry).changes(parts) if parts else ""
    return words or f"sha256 is {now[:SHOWN]}…, {digest[:SHOWN]}… recorded"
