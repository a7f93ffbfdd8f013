"""Writing manifest.json, the last file of an exported variant; mangakd.runtime.manifest says what is in it and reads it.

A server that starts from a half-written or exchanged file answers, and answers wrongly. So a variant is written to
`<name>.partial`, its files are hashed and listed at the very end, and the folder gets its name after that.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mangakd.core.files import sync_folder
from mangakd.core.numbers import largest
from mangakd.runtime.manifest import FORMAT, PARTIAL, Manifest, head_of, read, rows_independent
from mangakd.store.files import sha256, write_atomic

MANIFEST_FILE, TOKENIZER_FILE = "manifest.json", "tokenizer.json"
Content = Mapping[str, Any]
__all__ = ["PARTIAL", "add_metrics", "copy", "place", "read", "seal", "unsealed"]


def unsealed(folder: Path, content: Content) -> Manifest:
    """As `read` would give it, of a folder that is still being written and has no manifest yet."""
    tokenizer = content["tokenizer"]
    return Manifest(
        folder=folder, variant=content["variant"], backend=content["backend"], model=folder / content["model"],
        tokenizer=folder / tokenizer["file"], max_length=tokenizer["max_length"], pad_id=tokenizer["pad_id"],
        pad_type_id=tokenizer["pad_type_id"], truncation_side=tokenizer["truncation_side"],
        inputs=tuple(content["inputs"]), output=content["output"], head=head_of(dict(content)),
        rows_independent=rows_independent(dict(content)), tolerance=float("inf"), content=dict(content),
    )  # fmt: skip


def seal(folder: Path, content: Content) -> None:
    """Hash and flush what lies in `folder`, then write the manifest."""
    held = sorted(path for path in folder.iterdir() if path.name != MANIFEST_FILE)
    _flush(folder)
    _write(folder, {"format": FORMAT, **content, "files": {path.name: sha256(path) for path in held}})


def add_metrics(folder: Path, metrics: Mapping[str, Any], difference: float = 0.0, **keys: Any) -> None:
    """Put what was measured into a finished variant's manifest, beside what is there. Raises UserError as `read` does.

    difference: largest |Δ output| that was seen. The tolerance, until then that of a few texts, is widened to it. keys: of the
    manifest, which get these values.
    """
    content = read(folder).content
    found = {
        "tolerance": largest([content["tolerance"], difference]),
        "metrics": {**content.get("metrics", {}), **metrics},
    }
    _write(folder, {**content, **found, **keys})


def place(folder: Path, name: Path) -> Path:
    """Rename a sealed folder to its name. What has that name is set aside first: a folder half deleted never has it."""
    old = name.with_name(f"{name.name}.old{PARTIAL}")
    shutil.rmtree(old, ignore_errors=True)
    if name.exists():
        name.rename(old)
    folder.rename(name)
    sync_folder(name.parent)
    shutil.rmtree(old, ignore_errors=True)
    return name


def copy(folder: Path, name: Path) -> Path:
    """A finished variant under a second name, such as `best`; whole or not there. Raises UserError as `read` does."""
    read(folder)
    partial = name.with_name(f"{name.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(folder, partial)
        _flush(partial)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return place(partial, name)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _write(folder: Path, content: Content) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomic(folder / MANIFEST_FILE, lambda file: file.write(text.encode()))
