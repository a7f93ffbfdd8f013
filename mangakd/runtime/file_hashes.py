"""Compares the files of an exported folder with the hashes of its manifest, for encoders and for language models."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mangakd.core.errors import UserError


def verify(files: Mapping[str, str], folder: Path, source: str) -> None:
    """files: name → sha256, as `source` says. Raises UserError that names a missing or another file."""
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(
                f"{file} is missing: {folder} was copied in part. Copy it again, or export the student again."
            )
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != digest:
            raise UserError(
                f"{file} is not the file that was exported: its sha256 is {actual[:12]}…, {source} says {digest[:12]}…. "
                "Copy the folder again, or export the student again."
            )
