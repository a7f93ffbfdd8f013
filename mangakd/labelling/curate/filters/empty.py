"""Answers without a word."""

import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.record import Record

SAYS = "LNS"  # Unicode categories: letters, numbers and symbols, emoji among them


@dataclass
class Empty(Filter):
    """An answer of blanks, punctuation and invisible characters alone is empty. An emoji is an answer."""

    title: ClassVar[str] = "answers without a word"

    def reason(self, record: Record) -> str | None:
        if record.problem and not record.prompt and not record.answer:
            return None  # the cells could not be read, which says nothing of the answer
        if any(unicodedata.category(character)[0] in SAYS for character in record.answer):
            return None
        return "the answer has no word"
