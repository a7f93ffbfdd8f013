"""A file of prompts as rows, and a bar that shows nothing."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mangakd.data.rows import Rows
from mangakd.labelling.forms import Answers
from mangakd.labelling.label import read_prompts


@contextlib.contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda rows: None


def prompts(folder: Path, rows: list[dict[str, Any]]) -> Rows:
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return read_prompts(str(file), {}, Answers())
