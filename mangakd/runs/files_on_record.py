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


def places(record: Record, folder: Path, search: Iterable[Path] = ()) -> Iterator[Path]:
    """Where the file of a record may be: where it was, at the same place seen from `folder`, beside, and in `search`."""
    path = Path(record.get("path") or record["relative"])
    relative = Path(record.get("relative") or path)
    seen: set[Path] = set()
    for place in (
        folder / relative, path, folder / path.name, folder.absolute().parent / path.name,
        *(each / name for each in search for name in (relative, path.name) if not Path(name).is_absolute()),
    ):  # fmt: skip
        place = Path(os.path.normpath(place.absolute()))
        if place not in seen:
            seen.add(place)
            yield place


def all_files(path: Path) -> list[Path]:
    """The file, or the files in a folder; hidden ones are left out."""
    if path.is_file():
        return [path]
    inside = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in inside if not any(part.startswith(HIDDEN) for part in file.relative_to(path).parts))
