"""Answers that are too short or too long, by themselves or beside their prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mangakd.core.errors import UserError
from mangakd.data.bm25 import words
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.record import Record

KEY = "filters.length"
Bounds = Sequence[float | None]


@dataclass
class Length(Filter):
    """Each option is [least, most], null where there is no bound.

    words: runs of letters and digits; Chinese and Japanese count as pairs of neighbouring characters (data/bm25.py).
    tokens: the row's own count, which label writes; a row without it passes. ratio: characters of the answer by those of
    the prompt.
    """

    title: ClassVar[str] = "answers of another length"
    characters: Bounds = (None, None)
    words: Bounds = (None, None)
    tokens: Bounds = (None, None)
    ratio: Bounds = (None, None)

    def __post_init__(self) -> None:
        for name in ("characters", "words", "tokens", "ratio"):
            _check(getattr(self, name), f"{KEY}.{name}")

    def reason(self, record: Record) -> str | None:
        for name, (least, most) in self._bounds:
            size = _size(record, name)
            if size is None:
                continue
            if least is not None and size < least:
                return f"{size:g} {name}, the least is {least:g}"
            if most is not None and size > most:
                return f"{size:g} {name}, the most is {most:g}"
        return None

    @property
    def _bounds(self) -> list[tuple[str, Bounds]]:
        bounds = [(name, getattr(self, name)) for name in ("characters", "words", "tokens", "ratio")]
        return [(name, each) for name, each in bounds if any(bound is not None for bound in each)]


def _size(record: Record, name: str) -> float | None:
    """None where the row does not say it."""
    if name == "characters":
        return len(record.answer)
    if name == "words":
        return sum(1 for _ in words(record.answer))
    if name == "ratio":
        return round(len(record.answer) / len(record.prompt), 3) if record.prompt else None
    count = record.cells.get("tokens")
    return float(count) if isinstance(count, int | float) or (isinstance(count, str) and count.isdecimal()) else None


def _check(bounds: Bounds, key: str) -> None:
    numbers = (
        [each for each in bounds if each is not None]
        if isinstance(bounds, Sequence) and not isinstance(bounds, str)
        else None
    )
    if (
        numbers is None
        or len(bounds) != 2
        or any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers)
    ):
        raise UserError(f"{key}={bounds} must be two numbers, [least, most], null where there is no bound.")
    if numbers != sorted(numbers):
        raise UserError(f"{key}={list(bounds)}: the least is above the most.")
