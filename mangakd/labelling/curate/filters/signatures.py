"""`Signatures`: the MinHash values of rows as a file, for later files to be compared with.

The version of datasketch stands in the file, because hash values say nothing of the scheme that made them: with the hashes of
version 2.0, an index of 1.6 silently finds nothing.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.store.files import sha256

FILE = "near_duplicates.npz"


@dataclass(frozen=True)
class Signatures:
    """values (N, P): uint32, of N rows and P permutations. rows: a name of each row. form: how they were made."""

    values: np.ndarray
    rows: Sequence[str]
    form: Mapping[str, Any]

    def content(self) -> bytes:
        """The bytes of the file, equal for equal signatures."""
        about = {"datasketch": version("datasketch"), "form": dict(self.form), "rows": list(self.rows)}
        stream = io.BytesIO()
        np.savez(stream, values=self.values, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8))
        return stream.getvalue()

    @classmethod
    def read(cls, folder: Path, form: Mapping[str, Any], key: str) -> "Signatures":
        """Raises UserError for a folder without the file, another version of datasketch, and signatures of another form."""
        file = _file(folder, key)
        with np.load(file) as content:
            about, values = json.loads(content["about"].tobytes()), content["values"]
        if about["datasketch"] != version("datasketch"):
            raise UserError(
                f"{file} was written with datasketch {about['datasketch']}, and {version('datasketch')} is installed: their "
                f"hashes need not agree. Curate {folder} again, or install datasketch=={about['datasketch']}."
            )
        for name, value in form.items():
            if about["form"].get(name) != value:
                raise UserError(
                    f"{file} was written with {name}={about['form'].get(name)}, and this command has {value}. Use the same "
                    f"filters.near_duplicates.{name}."
                )
        return cls(values, about["rows"], form)

    @staticmethod
    def digest(folder: Path) -> str:
        return sha256(_file(folder, "filters.near_duplicates.against"))


def _file(folder: Path, key: str) -> Path:
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"{key}={folder} holds no {FILE}: curate it with filters.near_duplicates.keep=true.")
    return file
