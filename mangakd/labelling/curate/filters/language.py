"""Answers in another language than those that are wanted, by py3langid. The package holds its model: nothing is downloaded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from mangakd.core.errors import UserError, near
from mangakd.labelling.curate.extras import package
from mangakd.labelling.curate.filters.base import Filter, check_count, check_share
from mangakd.labelling.curate.record import Record

KEY = "filters.language"
FIRST_CJK = 0x2E80  # in Unicode; scripts of other languages with larger numbers have as much in a letter
NO_LETTERS = re.compile(r"https?://\S+|<[A-Z_]+_\d+>|[\W\d_]+")


@dataclass
class Language(Filter):
    """languages: ISO 639-1 codes. confidence: an answer is left out if all other languages have this probability together.

    letters: an answer with fewer passes, because the identifier is unsure of a few words. A letter of Chinese, Japanese or Korean
    counts as two.
    """

    title: ClassVar[str] = "answers in another language"
    languages: Sequence[str] = ("en", "ja")
    confidence: float = 0.9
    letters: int = 20

    def __post_init__(self) -> None:
        check_share(self.confidence, f"{KEY}.confidence")
        check_count(self.letters, f"{KEY}.letters")
        known = [str(each) for each in self._identifier.labels]
        for each in self.languages:
            if each not in known:
                raise UserError(
                    f"{KEY}.languages has {each!r}; a language is one of {', '.join(sorted(known))}{near(each, known)}"
                )
        if not self.languages:
            raise UserError(f"{KEY}.languages is empty: name the languages, or set {KEY}.use=false.")

    def reason(self, record: Record) -> str | None:
        text = NO_LETTERS.sub(" ", record.answer).strip()
        if sum(1 + (ord(each) >= FIRST_CJK) for each in text if each != " ") < self.letters:
            return None
        shares = dict(self._identifier.rank(text))
        others = 1.0 - sum(float(shares[each]) for each in self.languages)
        if others < self.confidence:
            return None
        return f"{max(shares, key=shares.__getitem__)} ({others:.2f})"

    @cached_property
    def _identifier(self) -> Any:
        langid = package("py3langid.langid", KEY)
        return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
