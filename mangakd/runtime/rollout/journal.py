"""What a rollout leaves on the disk: <name>.jsonl, a line for each decision and for each interval, and <name>.state.json.

The state is the truth. It is written to a scratch file, flushed and renamed before a decision takes effect, and it holds the line
of the last decision. A process that is killed between the two files therefore loses no decision: the next start appends the
missing line. Counts are written every few seconds without a flush to the disk; a kill loses those since.
"""

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.files import sync_folder

FORMAT = 1
Line = dict[str, Any]


class Journal:
    """The two files of `log`, locked for this process. Raises UserError where they cannot be used."""

    def __init__(self, log: str | Path):
        self.log = Path(log).expanduser()
        self.file = self.log.with_suffix(".state.json")
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.log.open("a+b")
        except OSError as error:
            raise UserError(
                f"log: {self.log} cannot be written: {error.strerror}. Give another log: in the yaml."
            ) from error
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"log: {self.log} belongs to another process that serves now. Stop it, or give this one another log: in its yaml."
            ) from error
        self._end_line()

    def state(self) -> dict[str, Any] | None:
        """The state of the last process, None for a new log. Appends the line of a decision that a kill cut off."""
        if not self.file.is_file():
            if self._stream.seek(0, os.SEEK_END):
                raise UserError(
                    f"{self.log} has lines and {self.file.name} is missing, so it is unknown where this rollout stands. "
                    "Restore the file, or give another log: in the yaml."
                )
            return None
        try:
            state = json.loads(self.file.read_text(encoding="utf-8"))
            if state["format"] != FORMAT:
                raise ValueError(f"format {state['format']!r}, not {FORMAT}")
            line = state["last"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.file} is no state of a rollout that this version reads ({error}). Restore it, or give "
                "another log: in the yaml."
            ) from error
        if line and line["number"] > self._last_number():
            self._append(line, True)
        return state

    def write(self, state: dict[str, Any], last: Line | None, line: Line | None = None, sync: bool = False) -> None:
        """last: the last decision, part of the state. line: what to append. sync: flush both to the disk.

        Raises OSError for a disk that takes no more.
        """
        scratch = self.file.with_name(f"{self.file.name}.partial")
        with scratch.open("w", encoding="utf-8") as stream:
            json.dump({"format": FORMAT, **state, "last": last}, stream)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(scratch, self.file)
        if sync:
            sync_folder(self.file.parent)
        if line is not None:
            self._append(line, sync)

    def close(self) -> None:
        self._stream.close()

    def _append(self, line: Line, sync: bool) -> None:
        self._stream.write(json.dumps(line).encode() + b"\n")
        self._stream.flush()
        if sync:
            os.fsync(self._stream.fileno())

    def _end_line(self) -> None:
        """A line that a kill cut off ends here, so that the next one begins a line."""
        end = self._stream.seek(0, os.SEEK_END)
        if end:
            self._stream.seek(end - 1)
            if self._stream.read(1) != b"\n":
                self._stream.write(b"\n")

    def _last_number(self) -> int:
        return max((line["number"] for line in read_lines(self.log) if line["event"] == "decision"), default=0)


def read_lines(log: Path) -> list[Line]:
    """Every whole line of a log. A line that a kill cut off is left out."""
    lines = []
    with log.open("rb") as stream:
        for raw in stream:
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if isinstance(line, dict) and "event" in line:
                lines.append(line)
    return lines


def at(now: float) -> str:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
