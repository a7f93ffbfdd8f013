"""The parts of a report. html.py and markdown.py render them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Value(NamedTuple):
    """A number as text, with its interval."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """rows: each as long as `headers`; the first cell names the row. texts: cells hold sentences, not numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str | Value]]
    texts: bool = False


@dataclass(frozen=True)
class Figure:
    """svg: a whole element with its title. caption: the title in report.md.

    numbers: the figure's data as a table, for report.md and for readers who cannot see the figure.
    """

    svg: str
    caption: str
    numbers: Table


@dataclass(frozen=True)
class Verbatim:
    """The text of a file, collapsed in report.html."""

    title: str
    text: str


Block = str | Table | Figure | Verbatim


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
