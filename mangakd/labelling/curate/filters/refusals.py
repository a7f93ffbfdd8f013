"""Answers in which the model declines, by stated patterns."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from mangakd.core.errors import UserError
from mangakd.labelling.curate.filters.base import Filter, check_count
from mangakd.labelling.curate.record import Record

KEY = "filters.refusals"
APOSTROPHES = str.maketrans("’ʼ＇", "'''")


@dataclass
class Refusals(Filter):
    """patterns: language → regular expressions, read without case. within: characters from the answer's beginning.

    An apology alone is no refusal: a shop says "I'm sorry, this volume is out of stock". Raises UserError for a pattern that is
    no regular expression.
    """

    title: ClassVar[str] = "refusals"
    patterns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    within: int = 300

    def __post_init__(self) -> None:
        check_count(self.within, f"{KEY}.within")
        self._patterns = {
            language: [_compiled(each, language) for each in of] for language, of in self.patterns.items()
        }

    def reason(self, record: Record) -> str | None:
        text = record.answer[: self.within].translate(APOSTROPHES)
        for language, patterns in self._patterns.items():
            for pattern in patterns:
                if match := pattern.search(text):
                    return f"{language}: {match[0]}"
        return None


def _compiled(pattern: str, language: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, TypeError) as error:
        raise UserError(
            f"{KEY}.patterns.{language} has {pattern!r}, which is no regular expression: {error}."
        ) from error
