"""What a report is made of, written once and rendered twice (html.py, markdown.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Value(NamedTuple):
    """A number as text, with its interval."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """rows: as long as `headers`; the first cell names the row. texts: cells are sentences, not numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str | Value]]
    texts: bool = False


@dataclass(frozen=True)
class Figure:
    """svg: a whole element with its title. caption: the title in report.md.

    numbers: what it shows, for readers of report.md and for those who cannot see it.
    """

    svg: str
    caption: str
    numbers: Table


@dataclass(frozen=True)
class Verbatim:
    """A file as it is, folded away."""

    title: str
    text: str


Block = str | Table | Figure | Verbatim


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
