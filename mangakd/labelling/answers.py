"""The file of answers: JSONL in the order of the requests, appended as answers are ready, so that a killed process can go on.

Each row says what wrote it. A file that other settings or prompts have made is refused. Half a line at the end, which a kill
leaves, is removed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.json_text import parse
from mangakd.data.notices import short

BY, ROW, SAMPLE, ASKED = "written_by", "row", "sample", "asked"
Row = Mapping[str, Any]


class AnswerFile:
    """keys: what every row says of its request: ROW, its number in the file of prompts; SAMPLE; ASKED, a hash of the prompt.

    by: what writes the answers, with its settings. rows: how many the file holds.
    """

    def __init__(self, file: Path, by: Row, keys: Sequence[Row]) -> None:
        self._file, self._by, self._keys = file, dict(by), keys
        self._places = {(key[ROW], key[SAMPLE]): i for i, key in enumerate(keys)}
        self.rows = 0

    def resume(self) -> int:
        """How many requests are done; makes the file if there is none. Raises UserError for a file that this run did not make."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.touch()
        last = -1
        with self._file.open("rb+") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    stream.truncate(stream.seek(-len(line), os.SEEK_END))
                    break
                place = self._place(line, f"line {number} of out={self._file}")
                if place <= last:
                    raise UserError(f"line {number} of out={self._file} is not in the order of the prompts. {_OTHER}")
                last, self.rows = place, number
        return last + 1

    def append(self, answers: Mapping[int, Row]) -> None:
        """answers: place of a request → what its row holds. The rows are on the disk when this returns."""
        rows = [{**row, **self._keys[place], BY: self._by} for place, row in answers.items()]
        with self._file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            stream.flush()
            os.fsync(stream.fileno())
        self.rows += len(rows)

    def _place(self, line: bytes, where: str) -> int:
        """The request that a row answers."""
        try:
            row = parse(line.decode())
            by, place = dict(row[BY]), self._places.get((row[ROW], row[SAMPLE]))
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
        return place


_OTHER = "To begin anew, give another file: out=…."
