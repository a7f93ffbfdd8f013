"""Files as provenance.json records them: sha256 and place. A folder that was moved still finds them: each has a relative path."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mangakd.store.files import sha256

Record = Mapping[str, Any]
HIDDEN = "."


def record_of(file: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """The entry of a file. folder: of the run. more: entries before the others, such as the key that named the file.

    A file within the folder has a relative path alone.
    """
    whole = file.absolute()
    within = whole.is_relative_to(folder.absolute())
    path = {} if within else {"path": str(whole)}
    relative = Path(os.path.relpath(whole, folder.absolute())).as_posix()
    return {**more, **path, "relative": relative, "bytes": file.stat().st_size, "sha256": sha256(file)}


def own_places(record: Record, folder: Path) -> list[Path]:
    """Where the file of a record was: seen from `folder`, and by its path."""
    known = (folder / record["relative"] if record.get("relative") else None, record.get("path"))
    return [_plain(Path(place)) for place in known if place]


def other_places(record: Record, folder: Path, search: Iterable[Path]) -> Iterator[Path]:
    """Where a file that was moved may be: beside `folder`, in it, and in the folders of `search`."""
    path = Path(record.get("path") or record["relative"])
    relative = record.get("relative") or path.name
    for place in (folder, folder.absolute().parent, *search):
        yield from (_plain(place / name) for name in (relative, path.name) if not Path(name).is_absolute())


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def all_files(path: Path) -> list[Path]:
    """The file, or the files in a folder; hidden ones are left out."""
    if path.is_file():
        return [path]
    inside = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in inside if not any(part.startswith(HIDDEN) for part in file.relative_to(path).parts))
