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
NO_LETTERS = re.compile(r"https?://\S+|<[A-Z_]+_\d+>|[\W\d_]+")


@dataclass
class Language(Filter):
    """languages: ISO 639-1 codes. confidence: an answer is left out if another language has this probability or more.

    characters: a shorter answer passes, counted in letters: the identifier is unsure of a few words.
    """

    title: ClassVar[str] = "answers in another language"
    languages: Sequence[str] = ("en", "ja")
    confidence: float = 0.9
    characters: int = 20

    def __post_init__(self) -> None:
        check_share(self.confidence, f"{KEY}.confidence")
        check_count(self.characters, f"{KEY}.characters")
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
        if len(text.replace(" ", "")) < self.characters:
            return None
        language, confidence = self._identifier.classify(text)
        if language in self.languages or confidence < self.confidence:
            return None
        return f"{language} ({float(confidence):.2f})"

    @cached_property
    def _identifier(self) -> Any:
        langid = package("py3langid.langid", KEY)
        return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
