"""Rows of a file that a test writes, and the header that most of them have."""

from pathlib import Path
from typing import Any

from mangakd.data.rows import Rows
from mangakd.data.sources import Files

HEAD = "text,label\n"


def rows(tmp_path: Path, name: str, content: str | bytes, problem: str = "single_label", **options: Any) -> Rows:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = Files(path=str(file), **options)
    source.problem = problem  # type: ignore[assignment]
    return source.read()["train"]
