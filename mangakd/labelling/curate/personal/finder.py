"""Finds personal data in a text, in any script, and weighs the words around each match.

Presidio's patterns end words at `\\b`, and Japanese has no blanks: 電話は090-1234-5678です holds no such boundary
around the number. So the recognisers read a copy of the text of the same length. In the copy full-width characters are ASCII, and
other characters than letters of Latin script are line ends.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mangakd.labelling.curate.personal.recognisers import AFTER, BEFORE, KINDS, Kind, recognisers

THRESHOLD = 0.4  # presidio's least score of a match that has context
CONTEXT = 0.35  # presidio's gain of a context word
PLAIN_PHONE = 0.3  # of digits without any separator, which may be any number
HYPHENS = "‐‑‒–—―−ｰ﹣－"
LONG_VOWEL = re.compile(r"(?<=\d)ー(?=\d)")  # which many people type for a hyphen
MOBILE = re.compile(r"0[789]0\d{8}")  # of Japan
LAST_LATIN = 0x250


@dataclass(frozen=True)
class Match:
    """A place in a text. kind: of placeholders. value: equal for two ways to write one value."""

    start: int
    end: int
    kind: str
    value: str


class Finder:
    """regions: see `recognisers`. kinds: entities of presidio. Raises UserError where presidio is not installed."""

    def __init__(self, regions: Sequence[str], kinds: Sequence[str]) -> None:
        self._recognisers = recognisers(tuple(regions), frozenset(kinds))
        self._regions = tuple(regions)

    def matches(self, text: str) -> list[Match]:
        """In the order of the text, without overlaps: the surer match wins, then the longer."""
        if not re.search(r"[\d@:.]", unicodedata.normalize("NFKC", text)):
            return []
        copy = ascii_copy(text)
        matches = sorted(
            self._scored(text, copy), key=lambda each: (-each[0], each[1].start - each[1].end, each[1].start)
        )
        chosen: list[Match] = []
        for _, match in matches:
            if all(match.end <= other.start or match.start >= other.end for other in chosen):
                chosen.append(match)
        return sorted(chosen, key=lambda match: match.start)

    def _scored(self, text: str, copy: str) -> Iterator[tuple[float, Match]]:
        for recogniser in self._recognisers:
            entity = recogniser.supported_entities[0]
            if not _may_hold(copy, entity):
                continue
            for result in recogniser.analyze(copy, [entity]):
                start, end = _trimmed(copy, result.start, result.end)
                score = self._score(text, copy, start, end, entity, float(result.score))
                if score >= THRESHOLD - 1e-9:  # 0.05 + 0.35 is below 0.4 in binary
                    kind = KINDS[entity].name
                    yield score, Match(start, end, kind, self._value(copy[start:end], kind))

    def _score(self, text: str, copy: str, start: int, end: int, entity: str, score: float) -> float:
        words = copy[start:end]
        if entity == "PHONE_NUMBER":
            score = _phone_score(words)
        if _is_price(text, start, end):
            return 0.0
        if entity == "IP_ADDRESS" and len(words) < len("1.1.1.1"):
            return 0.0  # such as the :: of a program
        return score + CONTEXT * _context(text, start, end, KINDS[entity])

    def _value(self, words: str, kind: str) -> str:
        if kind == "PHONE":
            return _phone_value(words, self._regions)
        return words.casefold() if kind in ("EMAIL", "URL", "IP") else re.sub(r"[ -]", "", words).upper()


def ascii_copy(text: str) -> str:
    """The text with one character for each of its own."""
    return "".join(map(_ascii, LONG_VOWEL.sub("-", text)))


def _ascii(character: str) -> str:
    if character.isascii():
        return character
    if character in HYPHENS:
        return "-"
    if character == "：":
        return "\n"  # it stands before a value: "IP：" is no part of an address of version 6
    plain = unicodedata.normalize("NFKC", character)
    if len(plain) == 1 and plain.isascii():
        return plain
    return character if character.isalpha() and ord(character) < LAST_LATIN else "\n"


def _trimmed(copy: str, start: int, end: int) -> tuple[int, int]:
    """Without a bracket around a number that is in brackets."""
    while copy[start] == "(" and copy.count("(", start, end) > copy.count(")", start, end):
        start += 1
    while copy[end - 1] == ")" and copy.count(")", start, end) > copy.count("(", start, end):
        end -= 1
    return start, end


def _may_hold(copy: str, entity: str) -> bool:
    """A quick look, because most texts hold nothing."""
    if entity == "EMAIL_ADDRESS":
        return "@" in copy
    if entity == "URL":
        return "." in copy
    if entity == "IP_ADDRESS":
        return copy.count(".") >= 3 or copy.count(":") >= 2
    return sum(1 for each in copy if each.isdigit()) >= 7


def _phone_score(words: str) -> float:
    digits = re.sub(r"\D", "", words)
    if words.startswith("+") or MOBILE.fullmatch(digits):
        return 0.75
    return PLAIN_PHONE if words.isdigit() else THRESHOLD


def _is_price(text: str, start: int, end: int) -> bool:
    before, after = text[max(start - 2, 0) : start], text[end : end + 4]
    return re.search(r"[¥￥$€]\s?$", before) is not None or re.match(r"\s?(?:円|yen|usd|jpy)", after, re.I) is not None


def _context(text: str, start: int, end: int, kind: Kind) -> int:
    """1 where the nearest word around a match speaks for it, −1 where it speaks against it, 0 where there is none."""
    before, after = text[max(start - BEFORE, 0) : start].casefold(), text[end : end + AFTER].casefold()
    before = re.split(r"[。!?！？\n]|\. ", before)[-1]
    near = _place(kind.context, before)
    against = -1 if kind.always else _place(kind.denial, before)
    if near < 0 and against < 0:
        return 1 if _place(kind.context, re.split(r"[。!?！？\n]|\. ", after)[0]) >= 0 else 0
    return 1 if near >= against else -1


def _place(words: Sequence[str], text: str) -> int:
    """Where the last of the words begins, −1 where there is none. A word of ASCII letters is a whole word, or its plural."""
    places = [match.start() for word in words for match in re.finditer(_pattern(word), text)]
    return max(places, default=-1)


def _pattern(word: str) -> str:
    whole = word.isascii() and word.isalnum()
    return rf"(?<![a-z0-9]){word}s?(?![a-z])" if whole else re.escape(word)


def _phone_value(words: str, regions: Sequence[str]) -> str:
    """E.164 where a region reads the number, so that 090-1234-5678 and +81 90 1234 5678 are one value."""
    import phonenumbers

    for region in regions:
        try:
            number = phonenumbers.parse(words, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    return re.sub(r"\D", "", words)
