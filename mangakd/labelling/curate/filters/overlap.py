"""Rows that share a run of words with an evaluation set: a model that learns them is not tested by that set.

Runs of 13 words are the usual measure (Brown et al. 2020, arXiv:2005.14165, appendix C). Chinese and Japanese have no blanks:
there a run has twice as many characters. A text of the evaluation set that is shorter than a run is looked for as a whole. A
very short text counts only as a whole prompt, because many texts hold "thank you" and many answers are "yes".
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mangakd.core.errors import UserError
from mangakd.labelling.curate.filters.base import Filter, check_count
from mangakd.labelling.curate.record import Record
from mangakd.labelling.curate.source import Reading, Source
from mangakd.store.files import sha256

KEY = "filters.overlap"
CHARACTERS = 2  # of Chinese or Japanese that count as a word
UNSPACED = re.compile("[\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
TOKEN = re.compile(
    "[\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\\W_\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+"
)
SHOWN = 80  # characters of a run in a report


@dataclass
class Overlap(Filter):
    """evaluation: files of any kind that tasks read; of each, prompts and answers count. words: of a run.

    shortest: words of a text that is looked for within others; a shorter prompt must be equal to a whole prompt.
    """

    title: ClassVar[str] = "rows that overlap an evaluation set"
    evaluation: Sequence[str] = ()
    words: int = 13
    shortest: int = 8
    _runs: dict[int, dict[int, str]] = field(default_factory=dict, init=False, repr=False)
    _wholes: dict[tuple[str, ...], str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_count(self.words, f"{KEY}.words")
        check_count(self.shortest, f"{KEY}.shortest")
        if self.shortest > self.words:
            raise UserError(f"{KEY}.shortest={self.shortest} is above {KEY}.words={self.words}.")
        self._digests = [self._learn(path) for path in self.evaluation]

    @property
    def settings(self) -> dict[str, Any]:
        return {"words": self.words, "shortest": self.shortest, "evaluation": self._digests}

    def reason(self, record: Record) -> str | None:
        for text in dict.fromkeys((record.prompt, record.answer)):
            tokens = tokens_of(text)
            if text == question(record) and (place := self._wholes.get(tuple(tokens))):
                return f"equal to {place}"
            for size, runs in self._runs.items():
                for start in range(len(tokens) - size + 1):
                    part = tokens[start : start + size]
                    if place := runs.get(hash_of(part)):
                        return f"{place}: {joined(part)[:SHOWN]}"
        return None

    def _learn(self, path: str) -> dict[str, str]:
        source = Source(path, Reading(key=f"{KEY}.evaluation"))
        for record in source.records():
            place = f"{source.unit} {record.number} of {source.file.name}"
            for text in (record.prompt, record.answer):
                self._add(tokens_of(text), place, text == question(record))
        return {"file": source.file.name, "sha256": sha256(source.file)}

    def _add(self, tokens: list[str], place: str, is_question: bool) -> None:
        if not tokens:
            return
        scale = CHARACTERS if unspaced(tokens) else 1
        size = min(self.words * scale, len(tokens))
        if size < self.shortest * scale:
            if is_question:
                self._wholes.setdefault(tuple(tokens), place)
            return
        runs = self._runs.setdefault(size, {})
        for start in range(len(tokens) - size + 1):
            runs.setdefault(hash_of(tokens[start : start + size]), place)


def question(record: Record) -> str:
    """The prompt, or the text of a row without prompts."""
    return record.prompt or record.answer


def tokens_of(text: str) -> list[str]:
    """Words without case, and single characters of Chinese and Japanese."""
    return TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def unspaced(tokens: Sequence[str]) -> bool:
    """Whether most tokens are characters of Chinese or Japanese."""
    return 2 * sum(1 for token in tokens if UNSPACED.match(token)) > len(tokens)


def joined(tokens: Sequence[str]) -> str:
    """The tokens as they would be written: no blanks between characters of Chinese and Japanese."""
    return re.sub(f"(?<={UNSPACED.pattern}) (?={UNSPACED.pattern})", "", " ".join(tokens))


def hash_of(tokens: Sequence[str]) -> int:
    """64 bits take less memory than a run of words."""
    return hash(tuple(tokens))
