"""Writes language.json, the last file of an exported language model. mangakd.runtime.language_manifest defines and reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mangakd.export.manifest import flush
from mangakd.runtime.language_manifest import FILE, FORMAT, read
from mangakd.store.files import sha256, write_atomic


def seal(folder: Path, content: Mapping[str, Any]) -> None:
    """Hash and flush the files of `folder`, then write language.json."""
    paths = sorted(path for path in folder.iterdir() if path.name != FILE)
    flush(folder)
    _write(folder, {"format": FORMAT, **content, "files": {path.name: sha256(path) for path in paths}})


def add_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add measurements to a finished variant. Raises UserError as `read` does."""
    content = read(folder).content
    _write(folder, {**content, "metrics": {**content["metrics"], **metrics}})


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomic(folder / FILE, lambda file: file.write(text.encode()))
