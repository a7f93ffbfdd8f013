"""`Record`: one row of the data as its filters see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """number: the row's place in its file, from 1. cells: all columns of the row, without missing ones.

    prompt: what was asked, without system prompt and passages. answer: the text that filters check.
    rest: the cells that a model also reads or learns, such as a label or passages. problem: why no task can read the row,
    "" where one can.
    """

    number: int
    cells: Mapping[str, Any]
    prompt: str = ""
    answer: str = ""
    rest: str = ""
    problem: str = ""

    @property
    def text(self) -> str:
        """Prompt and answer."""
        return f"{self.prompt}\n{self.answer}" if self.prompt else self.answer

    def part(self, of: str) -> str:
        """of: row, prompt or answer."""
        return self.text if of == "row" else str(getattr(self, of))
