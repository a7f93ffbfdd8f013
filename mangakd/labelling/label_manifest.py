"""`<out>.label.json`: what made a file of answers. `mangakd curate` writes it on the dataset card, `mangakd audit` verifies it.

    {"out": {"path", "sha256", "rows"}, "data": {"path", "sha256", "rows"}, "form": {"name", …settings},
     "template": {"path", "sha256"} or null, "teacher": identity of the provider, "sampling": {…}, "seed", "samples", "cut",
     "ledger": {"path", "requests", "answers", "refused", "failed", "uncertain", "tokens_in", "tokens_out", "cost",
                "cost_uncertain", "currency", "first", "last"} or null, "versions": {package: version, "code": {…}}, "date",
     "digests": sha256 of a file → digests of its rows or lines (data/file_parts.py)}

A path of a file beside `out` is its name alone, so that a folder can be moved. Costs are in `currency`; a cost is null where a
price is unknown. `first` and `last` are the times of the first and the last answer; all times are UTC, ISO 8601.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mangakd.core.code_version import code_version, package_versions
from mangakd.core.errors import UserError
from mangakd.data.file_parts import parts_of_all
from mangakd.data.json_text import parse

Plain = Mapping[str, Any]
SUFFIX = ".label.json"
_CHUNK = 1 << 20  # bytes


def manifest_path(out: Path) -> Path:
    return out.with_name(out.name + SUFFIX)


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def file_entry(file: Path | None, out: Path, rows: int | None = None) -> Plain | None:
    """path, sha256 and, where they are counted, rows of a file; None where there is no file."""
    if file is None or not file.is_file():
        return None
    path = file.name if file.resolve().parent == out.resolve().parent else os.fspath(file)
    entry: dict[str, Any] = {"path": path, "sha256": file_digest(file)}
    return entry if rows is None else {**entry, "rows": rows}


def _digests(out: Path, entries: Sequence[Plain | None]) -> Plain:
    """sha256 of a file → digests of its rows or lines. entries: of the files."""
    files = {each["sha256"]: Path(each["path"]) for each in entries if each}
    return parts_of_all({digest: out.parent / file if len(file.parts) == 1 else file for digest, file in files.items()})


def versions(packages: Sequence[str] = ()) -> Plain:
    """mangakd's version with its commit in a git checkout, and those of the packages that are installed."""
    return {**package_versions(packages), "code": code_version()}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_manifest(out: Path, content: Plain) -> Path:
    """Write the manifest of `out` whole: a killed process leaves the old one.

    Adds digests of rows and of lines of the template, which name one that changes later.
    """
    content = {**content, "digests": _digests(out, [content.get(name) for name in ("out", "data", "template")])}
    file = manifest_path(out)
    partial = file.with_name(file.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    return file


def read_manifest(out: Path) -> Plain | None:
    """The manifest beside `out`; None where there is none. Raises UserError for a file that is no manifest."""
    file = manifest_path(out)
    if not file.is_file():
        return None
    try:
        content = parse(file.read_text(encoding="utf-8"))
        content["out"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is no manifest that label wrote ({error}). Delete it, and run the command of label again."
        ) from error
    return content  # type: ignore[no-any-return]
