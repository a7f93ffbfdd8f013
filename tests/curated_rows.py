"""Files of rows for curate, the command as a function, and what tasks make of its folder."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mangakd.data.sources import Files
from mangakd.labelling.curate.curate import Options, curate
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.filters.duplicates import Duplicates
from mangakd.labelling.curate.filters.empty import Empty
from mangakd.labelling.curate.filters.ended import Ended
from mangakd.labelling.curate.filters.length import Length
from mangakd.labelling.curate.filters.near_duplicates import NearDuplicates
from mangakd.labelling.curate.filters.overlap import Overlap
from mangakd.labelling.curate.filters.personal_data import PersonalData
from mangakd.labelling.curate.filters.unusable import Unusable
from mangakd.labelling.curate.source import Reading
from mangakd.tasks.base import Task

Objects = list[dict[str, Any]]
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


@contextlib.contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    rows = 0

    def advance(count: int) -> None:
        nonlocal rows
        rows += count

    yield advance
    assert rows == total, "the bar ends at its end"


def filters() -> dict[str, Filter]:
    return {
        "ended": Ended(),
        "empty": Empty(),
        "unusable": Unusable(),
        "length": Length(characters=[None, 200]),
        "overlap": Overlap(),
        "duplicates": Duplicates(),
        "near_duplicates": NearDuplicates(keep=True),
        "personal_data": PersonalData(),
    }


def options(reading: Reading | None = None, **more: Any) -> Options:
    return Options(
        **{"reading": reading or Reading(), "filters": filters(), "off": ["language"], "shares": SHARES, **more}
    )


def write(file: Path, rows: Objects) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


def run(file: Path, name: str = "out", choice: Options | None = None) -> Path:
    out = file.parent / name
    curate(str(file), out, choice or options(), file.parent / "cache", no_bar)
    return out


def lines(file: Path) -> Objects:
    return [json.loads(line) for line in file.read_text().splitlines()]


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "curated.json").read_text())  # type: ignore[no-any-return]


def answers(count: int = 30) -> Objects:
    rows: Objects = [
        {
            "prompt": f"where is book {i}?",
            "answer": f"Shelf {i * 7919} holds it, and {'very ' * (i % 9)}soon more.",
            "row": i,
            "ended": True,
        }
        for i in range(count)
    ]
    rows[3]["answer"] += " Mail to taro@example.co.jp or call 03-1234-5678."
    rows[4]["ended"] = False
    rows[5]["answer"] = "…"
    del rows[6]["answer"]
    rows[7] |= {"prompt": rows[8]["prompt"].upper(), "answer": rows[8]["answer"] + "!"}
    rows[9]["answer"] = "long " * 50 + " hanako@example.com"
    return rows


def loaded(task: Task, out: Path, ending: str = "jsonl", **more: Any) -> dict[str, Any]:
    """What the task's own reader makes of the files."""
    paths = dict(
        zip(("path", "val_path", "test_path"), (str(out / f"{name}.{ending}") for name in SPLITS), strict=True)
    )
    return dict(task.prepare(Files(**paths, **more).load(task.columns, task.optional)).splits)
