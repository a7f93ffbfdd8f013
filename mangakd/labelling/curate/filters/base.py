"""`Filter`: says of a record why it is left out."""

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

from mangakd.core.errors import UserError
from mangakd.labelling.curate.record import Record

PARTS = ("row", "prompt", "answer")


class Filter(ABC):
    """A dataclass of options. title: a plural noun for the rows that it leaves out, in reports.

    A filter may remember the records that it let pass, so it sees each record once and in the order of the file.
    """

    title: ClassVar[str]

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @abstractmethod
    def reason(self, record: Record) -> str | None:
        """Why the record is left out; None where it passes."""


def check_part(of: str, key: str) -> None:
    """Raises UserError for what is no part of a record."""
    if of not in PARTS:
        raise UserError(f"{key}={of} must be one of {', '.join(PARTS)}.")


def check_share(value: object, key: str) -> None:
    """Raises UserError for what is no number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UserError(f"{key}={value} must be a number above 0 and at most 1.")


def check_count(value: object, key: str) -> None:
    """Raises UserError for what is no whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{key}={value} must be a whole number from 1 on.")
