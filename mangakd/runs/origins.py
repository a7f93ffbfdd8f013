"""What made a file of training data: the manifests that `mangakd label` and `mangakd curate` leave beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LABEL, CURATED = ".label.json", "curated.json"  # the first one ends the name of the file that it describes
DIGESTS = "digests"  # of a manifest
BY = "written_by"  # of a row that label wrote


def label_file(file: Path) -> Path:
    """The manifest of a file that label wrote."""
    return file.with_name(file.name + LABEL)


def read_object(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file, or another content."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def origin_of(file: Path) -> dict[str, Any]:
    """label: the manifest of the file, without its digests of rows. curated: that of its folder. written_by: who wrote its rows,
    each once.

    Only entries that exist. A file that people made has none.
    """
    label, curated = read_object(label_file(file)), read_object(file.with_name(CURATED))
    writers = writers_of(file)
    label = {name: value for name, value in (label or {}).items() if name != DIGESTS}
    entries = {"label": label, "curated": curated, BY: list(writers.values())}
    return {name: content for name, content in entries.items() if content}


def writers_of(file: Path) -> dict[str, dict[str, Any]]:
    """`written_by` of the rows of a JSONL file: as text → as object, each once. {} for other files."""
    if file.suffix.lower() not in (".jsonl", ".ndjson"):
        return {}
    writers: dict[str, dict[str, Any]] = {}
    with file.open("rb") as stream:
        for line in stream:
            if by := writer_of(line):
                writers.setdefault(json.dumps(by, sort_keys=True), by)
    return writers


def writer_of(line: bytes) -> dict[str, Any] | None:
    """`written_by` of a row; None for a row without it."""
    if BY.encode() not in line:
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    by = row.get(BY) if isinstance(row, Mapping) else None
    return by if isinstance(by, dict) else None
