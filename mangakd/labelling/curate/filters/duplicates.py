"""Rows that repeat an earlier row, but for case, blanks, punctuation and the form of their characters."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from typing import ClassVar

from mangakd.labelling.curate.filters.base import Filter, check_part
from mangakd.labelling.curate.record import Record

BREAKS = re.compile(r"[\W_]+")


@dataclass
class Duplicates(Filter):
    """of: row (prompt and answer), prompt or answer. The first row stays."""

    title: ClassVar[str] = "duplicates"
    of: str = "row"
    _first: dict[bytes, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_part(self.of, "filters.duplicates.of")

    @property
    def settings(self) -> dict[str, str]:
        return {"of": self.of}

    def reason(self, record: Record) -> str | None:
        text = normalised(record.part(self.of))
        if not text:
            return None
        rest = record.rest if self.of == "row" else ""  # one text under two labels is no copy
        digest = hashlib.blake2b(f"{text}\0{rest}".encode("utf-8", "replace"), digest_size=16).digest()
        first = self._first.setdefault(digest, record.number)
        return None if first == record.number else f"equal to row {first}"


def normalised(text: str) -> str:
    """Equal for texts that differ in case, blanks, punctuation and the form of their characters (NFKC: ＡＢＣ is ABC) alone."""
    return BREAKS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
