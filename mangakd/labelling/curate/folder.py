"""The folder that curate writes: whole or not there, and never of two settings."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.files import sync_folder
from mangakd.data.notices import short

MANIFEST = "curated.json"
OTHER = "Give another folder, out=…, or remove this one."


def is_whole(out: Path, data: str, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds what these settings make. data: SHA-256 of the rows.

    Raises UserError for a folder that other rows or settings made, and for one that is not ours.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"out={out} is a file. Give a folder, out=….")
    if not (out / MANIFEST).is_file():
        if any(out.iterdir()):
            raise UserError(f"out={out} holds files and no {MANIFEST}: mangakd curate did not make it. {OTHER}")
        return False
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    if manifest["data"]["sha256"] != data:
        raise UserError(
            f"out={out} was made of other rows: SHA-256 {manifest['data']['sha256'][:16]}…, not {data[:16]}…. {OTHER}"
        )
    before, now = dict(_flat(manifest["settings"])), dict(_flat(json.loads(json.dumps(settings))))
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            raise UserError(
                f"out={out} was made with {key}={short(before.get(key))}, and this command has {short(now.get(key))}. {OTHER}"
            )
    return True


def write_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """`fill` writes into a folder of another name, which then becomes `out`."""
    scratch = out.with_name(f"{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    fill(scratch)
    sync_folder(scratch)
    scratch.rename(out)
    sync_folder(out.parent)


def _flat(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """The settings by their keys, such as filters.length.ratio."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        flat += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) and value else [(f"{before}{key}", value)]
    return flat
