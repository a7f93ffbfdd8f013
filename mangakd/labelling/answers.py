"""The file of answers: JSONL in the order of the requests, appended as answers are ready, so that a killed process can go on.

Each row says what wrote it. A file that other settings or prompts have made is refused. Half a line at the end, which a kill
leaves, is removed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.json_text import parse
from mangakd.data.notices import short

BY, ROW, SAMPLE, ASKED = "written_by", "row", "sample", "asked"
DOCUMENT = "document"  # its number in a row of several documents, each of which is asked for
PART = "part"  # [number, count] of a row, where an answer becomes several
Row = Mapping[str, Any]


class AnswerFile:
    """keys: what every row says of its request: ROW, its number in the file of prompts; SAMPLE; ASKED, a hash of the prompt;
    DOCUMENT where a row asks several times.

    by: what writes the answers, with its settings. rows: how many the file holds.
    """

    def __init__(self, file: Path, by: Row, keys: Sequence[Row]) -> None:
        self._file, self._by, self._keys = file, dict(by), keys
        self._places = {_name(key): i for i, key in enumerate(keys)}
        self.rows = 0

    def resume(self) -> int:
        """How many requests are done; makes the file if there is none. Raises UserError for a file that this run did not make."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.touch()
        state = _State()
        with self._file.open("rb+") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    break
                where = f"line {number} of out={self._file}"
                if not state.add(self._place(line, where), len(line)):
                    raise UserError(f"{where} is not in the order of the prompts. {_OTHER}")
            stream.truncate(state.bytes)
        self.rows = state.rows
        return state.done

    def append(self, answers: Mapping[int, Sequence[Row]]) -> None:
        """answers: place of a request → what its rows hold. The rows are on the disk when this returns."""
        rows = [
            {**row, **self._keys[place], **({PART: [part, len(each)]} if len(each) > 1 else {}), BY: self._by}
            for place, each in answers.items()
            for part, row in enumerate(each, 1)
        ]
        write_lines(self._file, rows)
        self.rows += len(rows)

    def _place(self, line: bytes, where: str) -> tuple[int, int, int]:
        """The request that a row answers, the number of the row among those of the request, and their count."""
        try:
            row = parse(line.decode())
            by, place, (part, count) = dict(row[BY]), self._places.get(_name(row)), row.get(PART, (1, 1))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where} is no row that label wrote. {_OTHER}") from error
        for name in [*self._by, *by]:
            if by.get(name) != self._by.get(name):
                raise UserError(
                    f"{where} was written with {name}={short(by.get(name))}, and this run has {short(self._by.get(name))}. Use "
                    f"the same settings. {_OTHER}"
                )
        if place is None or row.get(ASKED) != self._keys[place][ASKED]:
            raise UserError(
                f"{where} answers another prompt than data.path holds at {row[ROW]}. Use the same prompts, to which more may be "
                f"appended. {_OTHER}"
            )
        return place, part, count


@dataclass
class _State:
    """What is whole in a file: requests that are done, their rows and bytes. A kill may leave a part of a request's rows."""

    done: int = 0
    rows: int = 0
    bytes: int = 0
    _open: tuple[int, int, int] | None = None  # request, next part, count
    _rows: int = 0
    _bytes: int = 0

    def add(self, row: tuple[int, int, int], size: int) -> bool:
        """Whether the row may stand here."""
        place, part, count = row
        if row != self._open and not (self._open is None and place >= self.done and part == 1):
            return False
        self._rows, self._bytes = self._rows + 1, self._bytes + size
        self._open = (place, part + 1, count) if part < count else None
        if self._open is None:
            self.done, self.rows, self.bytes = place + 1, self._rows, self._bytes
        return True


def write_lines(file: Path, rows: Sequence[Row]) -> None:
    """Append rows as JSON. They are on the disk when this returns."""
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())


def _name(key: Row) -> tuple[Any, ...]:
    """What tells a request from the others of a file."""
    return key[ROW], key.get(DOCUMENT), key[SAMPLE]


_OTHER = "To begin anew, give another file: out=…."
