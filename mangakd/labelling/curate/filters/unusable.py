"""Rows that the task of the file refuses: a missing label, two targets, messages that are none."""

from dataclasses import dataclass
from typing import ClassVar

from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.record import Record


@dataclass
class Unusable(Filter):
    """The reason is the message of the task's reader (labelling/curate/layouts.py)."""

    title: ClassVar[str] = "rows that the task cannot read"

    def reason(self, record: Record) -> str | None:
        return record.problem or None
