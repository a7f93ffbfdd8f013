"""What `mangakd label` wrote about a file of answers: `<file>.label.json` (labelling/label_manifest.py)."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
ENDING = ".label.json"


def label_manifest(file: Path, digest: str) -> Mapping[str, Any] | None:
    """None where there is none, or where the file has changed since: then a warning says so. digest: SHA-256 of the file."""
    manifest = file.with_name(file.name + ENDING)
    if not manifest.is_file():
        log.info("%s does not exist: the card says nothing of a teacher.", manifest)
        return None
    content = json.loads(manifest.read_text(encoding="utf-8"))
    if not isinstance(content, Mapping) or _digest(content) != digest:
        log.warning("%s is about other bytes than %s holds now: the card says nothing of a teacher.", manifest, file)
        return None
    return {name: value for name, value in content.items() if name != "digests"}  # those of rows stay beside the file


def _digest(content: Mapping[str, Any]) -> Any:
    out = content.get("out")
    return out.get("sha256") if isinstance(out, Mapping) else None
