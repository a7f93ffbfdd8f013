"""The ledger of an API's answers: its totals, and whether the answers of a file are in it."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from mangakd.runs.audit.finding import Finding, State, lines
from mangakd.runs.audit.look import Look
from mangakd.runs.origins import BY

Content = Mapping[str, Any]
END_OF_THOUGHT = "</think>"
TOTALS = {
    "requests": "SELECT count(*) FROM requests",
    "answers": "SELECT count(*) FROM requests WHERE state = 'answered'",
    "refused": "SELECT count(*) FROM requests WHERE state = 'answered' AND refused",
    "failed": "SELECT count(*) FROM requests WHERE state = 'failed'",
    "tokens_in": "SELECT total(tokens_in) FROM requests",
    "tokens_out": "SELECT total(tokens_out) FROM requests",
    "cost": "SELECT total(cost) FROM requests",
}
GROWS = ("requests", "answers", "refused", "tokens_in", "tokens_out", "cost")
"""Totals that other jobs on the same ledger raise and nothing lowers."""


def audit_ledger(entry: Content, look: Look, file: Path | None) -> Finding:
    """entry: of a label manifest. file: of the answers, None where it is missing."""
    name = f"ledger {entry.get('path')}"
    place = look.place({"relative": entry["path"], "path": entry["path"]}) if entry.get("path") else None
    if place is None:
        return Finding(name, State.MISSING, "the answers that were paid for are not there, nor beside")
    try:
        with closing(sqlite3.connect(f"{place.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            now = {total: connection.execute(query).fetchone()[0] for total, query in TOTALS.items()}
            texts = _texts(connection)
    except sqlite3.DatabaseError as error:
        return Finding(name, State.CHANGED, f"{place} cannot be read: {error}")
    lost = [
        f"{total} {now[total]:g}, {entry[total]:g} recorded" for total in GROWS if _less(now[total], entry.get(total))
    ]
    cost = "unknown" if entry.get("cost") is None else f"{now['cost']:g}"
    counts = [f"{total} {now[total]:g}" for total in ("requests", "answers", "refused", "failed")]
    words = ", ".join([*counts, f"cost {cost}"])
    state = State.CHANGED if lost else State.VERIFIED
    parts = () if file is None else tuple(_answers(file, texts))
    return Finding(name, state, "; ".join([words, *lost]), parts)


def _less(now: float, before: Any) -> bool:
    return isinstance(before, int | float) and now < before - 1e-9


def _answers(file: Path, texts: set[str]) -> Iterator[Finding]:
    """Compares column `answer` with the replies. Other forms are made of replies and not equal to them."""
    numbers, rows = [], 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("answer"), str) and not (row.get(BY) or {}).get("schema"):
                rows += 1
                if row["answer"].strip() not in texts:
                    numbers.append(number)
    if numbers:
        yield Finding("answers of the ledger", State.CHANGED, f"{lines(numbers)}: the ledger has no such answer")
    elif rows:
        yield Finding("answers of the ledger", State.VERIFIED, f"the answers of all {rows} rows are replies in it")


def _texts(connection: sqlite3.Connection) -> set[str]:
    """All texts within the raw replies."""
    return {
        text for (reply,) in connection.execute("SELECT reply FROM replies") for text in _strings(json.loads(reply))
    }


def _strings(value: Any) -> Iterator[str]:
    """A reply of several blocks of text is an answer, too, and so is what follows the thought of a reasoning model."""
    if isinstance(value, str):
        yield value.strip()
        yield value.rpartition(END_OF_THOUGHT)[2].strip()
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
        yield "".join(
            each["text"] for each in value if isinstance(each, dict) and isinstance(each.get("text"), str)
        ).strip()
