"""`Look`: finds a recorded file, hashes it, and says which part of a changed file changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mangakd.data.file_parts import Parts, parts_of
from mangakd.runs.audit.finding import Finding, State
from mangakd.runs.files_on_record import Record, places
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

    def at(self, folder: Path) -> "Look":
        return replace(self, folder=folder)

    def place(self, record: Record) -> Path | None:
        """Where the file is: the first place with the recorded hash, else the first with a file."""
        found = [place for place in places(record, self.folder, self.search) if place.is_file()]
        same = (place for place in found if sha256(place) == record.get("sha256"))
        return next(same, found[0] if found else None)

    def file(self, record: Record, name: str = "") -> Finding:
        """record: path, relative, sha256. name: of the finding; the path where it is left out."""
        path = record.get("path") or record.get("relative")
        name = name or str(path)
        digest = record.get("sha256")
        if not path or not digest:
            return Finding(name, State.UNRECORDED, "no hash")
        place = self.place(record)
        if place is None:
            return Finding(name, State.MISSING, f"{path} is not there, nor beside; search=[…] names folders to look in")
        moved = "" if _same(place, self.folder, str(path)) else f"at {place}"
        if (now := sha256(place)) == digest:
            return Finding(name, State.VERIFIED, moved)
        return Finding(name, State.CHANGED, "; ".join(filter(None, (moved, self.change(digest, place, now)))))

    def change(self, digest: str, file: Path, now: str) -> str:
        """Which parts of a file changed; its hashes where no parts were recorded."""
        entry, parts = self.parts.get(digest), parts_of(file)
        words = Parts.read(entry).changes(parts) if entry and parts else ""
        return words or f"sha256 is {now[:SHOWN]}…, {digest[:SHOWN]}… recorded"


def _same(place: Path, folder: Path, path: str) -> bool:
    return place in (Path(path).absolute(), (folder / path).absolute())
