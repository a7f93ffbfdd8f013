"""Rows of a file that a test writes, and the header that most of them have."""

from pathlib import Path
from typing import Any

from mangakd.data.rows import Rows
from mangakd.data.source import Corpus, Source
from mangakd.data.sources import Files
from mangakd.tasks.classification.task import Classification, Problem

HEAD = "text,label\n"


def rows(tmp_path: Path, name: str, content: str | bytes, problem: str = "single_label", **options: Any) -> Rows:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = Files(path=str(file), **options)
    source.needs = {"text": "text", "label": "labels" if problem == "multi_label" else "label"}
    return source.read()["train"]


def loaded(source: Source, problem: Problem = "single_label") -> Corpus:
    """As a run with task=intent reads it."""
    task = Classification(problem=problem)
    return task.prepare(source.load(task.columns))
