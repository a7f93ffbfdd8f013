"""Writes manifest.json, the last file of an exported variant. mangakd.runtime.manifest defines its content and reads it.

A server that loads a partial or exchanged file gives wrong answers. So a variant is written to `<name>.partial`; at the end its
files are hashed and listed, and then the folder gets its name.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mangakd.core.files import sync_folder
from mangakd.core.numbers import largest
from mangakd.core.spec import Head
from mangakd.runtime.manifest import FORMAT, PARTIAL, Manifest, questions, read, rows_independent
from mangakd.store.files import sha256, write_atomic

MANIFEST_FILE, TOKENIZER_FILE = "manifest.json", "tokenizer.json"
Content = Mapping[str, Any]
__all__ = ["PARTIAL", "add_metrics", "copy", "draft", "flush", "place", "read", "seal"]


def draft(folder: Path, content: Content) -> Manifest:
    """The Manifest of a folder that is being written and has no manifest.json yet; otherwise as `read` returns it."""
    tokenizer = content["tokenizer"]
    return Manifest(
        folder=folder, variant=content["variant"], backend=content["backend"], model=folder / content["model"],
        tokenizer=folder / tokenizer["file"], max_length=tokenizer["max_length"], pad_id=tokenizer["pad_id"],
        pad_type_id=tokenizer["pad_type_id"], truncation_side=tokenizer["truncation_side"],
        inputs=tuple(content["inputs"]), output=content["output"], head=Head.read(content["head"]),
        rows_independent=rows_independent(dict(content)), tolerance=float("inf"), content=dict(content),
        **questions(content),
    )  # fmt: skip


def seal(folder: Path, content: Content) -> None:
    """Hash and flush the files of `folder`, then write the manifest."""
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST_FILE)
    flush(folder)
    _write(folder, {"format": FORMAT, **content, "files": {path.name: sha256(path) for path in paths}})


def add_metrics(folder: Path, metrics: Mapping[str, Any], difference: float = 0.0, **keys: Any) -> None:
    """Add measurements to a finished variant's manifest. Raises UserError as `read` does.

    difference: the largest measured |Δ output|. A smaller tolerance, which comes from a few texts, is raised to this value.
    keys: entries of the manifest to set.
    """
    content = read(folder).content
    updates = {
        "tolerance": largest([content["tolerance"], difference]),
        "metrics": {**content.get("metrics", {}), **metrics},
    }
    _write(folder, {**content, **updates, **keys})


def place(folder: Path, name: Path) -> Path:
    """Rename a sealed folder to its name. The old folder is renamed before it is deleted, so the name is never partial."""
    old = name.with_name(f"{name.name}.old{PARTIAL}")
    shutil.rmtree(old, ignore_errors=True)
    if name.exists():
        name.rename(old)
    folder.rename(name)
    sync_folder(name.parent)
    shutil.rmtree(old, ignore_errors=True)
    return name


def copy(folder: Path, name: Path, check: Callable[[Path], object] = read) -> Path:
    """Copy a finished variant to a second name, such as `best`. The copy is whole or absent. Raises UserError as `check` does."""
    check(folder)
    partial = name.with_name(f"{name.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(folder, partial)
        flush(partial)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return place(partial, name)


def flush(folder: Path) -> None:
    """Write the files of a folder through to the disk."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _write(folder: Path, content: Content) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomic(folder / MANIFEST_FILE, lambda file: file.write(text.encode()))
