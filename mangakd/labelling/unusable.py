"""`<out>.unusable.jsonl`: the answers that become no row of training data, each with its reason. None is dropped silently.

Each row holds the request (row, sample, asked), `reason`, `detail` and the text. The file belongs to `out`: a resumed command
removes the rows of requests that it asks again.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mangakd.data.json_text import parse
from mangakd.data.notices import short
from mangakd.labelling.answers import Row, write_lines
from mangakd.labelling.forms.form import Unusable
from mangakd.labelling.provider import Answer

SUFFIX = ".unusable.jsonl"
SHOWN = 3  # rows of a reason, in a message
log = logging.getLogger(__name__)


class UnusableFile:
    """Counts answers by reason, with their first rows, and writes them. keys: of all requests, as in AnswerFile."""

    def __init__(self, out: Path, keys: list[Row]) -> None:
        self.file, self._keys = out.with_name(out.name + SUFFIX), keys
        self.counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def resume(self, done: int) -> None:
        """Leave the answers to the first `done` requests in the file, and count them."""
        if not self.file.is_file():
            return
        names = {_name(key): place for place, key in enumerate(self._keys)}
        rows = [row for row in map(_row, self.file.read_bytes().splitlines()) if names.get(_name(row), done) < done]
        self.file.unlink()
        for row in rows:
            self._count(row)
        self._write(rows)

    def add(self, answers: Mapping[int, tuple[Answer, Unusable]]) -> None:
        """answers: place of a request → its answer, and why it is unusable."""
        rows = [
            {
                **self._keys[place], "reason": why.reason, "detail": why.detail, "text": answer.text,
                **({"thought": answer.thought} if answer.thought else {}),
            }
            for place, (answer, why) in answers.items()
        ]  # fmt: skip
        for row in rows:
            self._count(row)
        self._write(rows)

    def report(self, words: Mapping[str, str]) -> None:
        """Log each reason with its count and examples. words: reason → what else to say of it."""
        for reason, count in self.counts.items():
            examples = "; ".join(self._examples[reason]) + ("; …" if count > SHOWN else "")
            log.warning("%s: %d (%s). All are in %s.", words.get(reason, reason), count, examples, self.file)

    def _count(self, row: Row) -> None:
        reason = row["reason"]
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < SHOWN:
            words = row["detail"] or row["text"]
            examples.append(f"row {row['row']}: {short(words)}" if words else f"row {row['row']}")

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            write_lines(self.file, rows)


def _row(line: bytes) -> dict[str, Any]:
    """{} for half a line, which a kill leaves."""
    try:
        row = parse(line.decode())
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _name(row: Row) -> str:
    return json.dumps([row.get("row"), row.get("document"), row.get("sample"), row.get("asked")])
