"""Answers that the model did not end: `max_new_tokens`, a filter of the provider or an error did."""

from dataclasses import dataclass
from typing import ClassVar

from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.record import Record

DONE = ("ended", "stop", "end_turn", "stop_sequence", "eos")
"""Words for an end of the model's own, in the APIs of the providers."""


@dataclass
class Ended(Filter):
    """`ended` is what label writes; a file of other tools has `finish_reason` or `stop_reason`. Rows without them pass."""

    title: ClassVar[str] = "answers that the model did not end"

    def reason(self, record: Record) -> str | None:
        ended = record.cells.get("ended")
        if ended is False or str(ended).casefold() in ("false", "0"):
            return "ended is false"
        for name in ("finish_reason", "stop_reason"):
            value = record.cells.get(name)
            if value and str(value).casefold() not in DONE:
                return f"{name} is {value}"
        return None
