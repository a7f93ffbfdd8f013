"""Scores of a text that a model wrote, against a reference or a context: functions of strings. NaN where a score has no meaning.

    exact_match      1 where both texts are equal but for case, blanks, composition of characters and a full stop at the end
    rouge_l          F1 of the longest common subsequence of words: 2 · LCS / (words + words of the reference)
    final_answer     1 where the last number equals the one that the reference marks, as in `#### 42`
    repetition       1 − different n-grams / n-grams of words; 0 for a text of less than n words
    grounded         share of the content words that occur in the context

Words are runs of letters, marks and digits without case. In scripts that set no blanks (Chinese, Japanese, Thai …) each letter
is a word. The packages that compute ROUGE-L (rouge-score 0.1.2, which also needs nltk, and torchmetrics) drop what is not ASCII,
so that a Japanese answer scores 0.

Source: ROUGE-L: Lin 2004 (aclanthology.org/W04-1013), with F1 as in rouge-score; its subsequence by bits: Hyyrö 2004; repetition:
Welleck et al. 2020 (arXiv:1908.04319).
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ALONE = re.compile(f"[{_UNSPACED}]")
_MARK = "####"
# A sign is none after a word or a closing bracket, as in 10-3 and (2)-1. Groups of three digits may have commas between them.
_NUMBER = re.compile(
    r"((?<![\w.)])-)?[$€£¥₹]?((?:\d{1,3}(?:,\d{3})+(?![,\d])|\d+)(?:\.\d+)?|(?<!\d)\.\d+)(e[+-]?\d{1,3}(?!\w))?(?:/(\d+))?",
    re.ASCII,
)
_ENGLISH = """
a about above after again against all also am an and any are as at be because been before being below between both but
by can could did do does doing down during each few for from further had has have having he her here hers him his how i
if in into is it its itself just may me might more most must my no nor not now of off on once one only or other our ours
out over own s same shall she should so some such t than that the their theirs them then there these they this those
through to too under until up us very was we were what when where which while who whom why will with would yes you your
yours
"""
FUNCTION_WORDS = frozenset(_ENGLISH.split())
"""Words that say nothing of a subject."""


def exact_match(text: str, reference: str) -> float:
    return float(_plain(text) == _plain(reference))


def rouge_l(text: str, reference: str) -> float:
    """NaN where the reference holds no word."""
    own, other = words(text), words(reference)
    return 2 * _common(own, other) / (len(own) + len(other)) if other else math.nan


def final_answer(text: str, reference: str) -> float:
    """NaN where the reference neither marks an answer nor is a number alone. Other answers than numbers are compared as texts."""
    marked = _MARK in reference
    expected = _last(reference.rpartition(_MARK)[2])
    if not marked and (expected is None or re.search(r"[^\W\d_]", reference)):
        return math.nan
    own = text.rpartition(_MARK)[2]
    if expected is None:
        return exact_match(own, reference.rpartition(_MARK)[2])
    return float(_last(own) == expected)


def repetition(text: str, n: int = 4) -> float:
    own = words(text)
    grams = [*zip(*(own[i:] for i in range(n)), strict=False)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def grounded(text: str, context: Iterable[str]) -> float:
    """NaN without a context, and for a text without content words."""
    present = {word for passage in context for word in words(passage)}
    content = [word for word in words(text) if word not in FUNCTION_WORDS]
    return sum(word in present for word in content) / len(content) if content and present else math.nan


def words(text: str) -> list[str]:
    """The words of a text in their order."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    runs = ("".join(run) for inside, run in groupby(plain, _in_word) if inside)
    return [word for run in runs for word in _split(run)]


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _split(run: str) -> Iterator[str]:
    """The words of a run of letters; a mark belongs to the letter before it."""
    word = ""
    for character in run:
        starts = word and unicodedata.category(character)[0] != "M"
        if starts and (_ALONE.match(word) or _ALONE.match(character)):
            yield word
            word = ""
        word += character
    yield word


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence: bit i of `row` is 0 where it grows at one[i]."""
    places: dict[str, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    row = every = (1 << len(one)) - 1
    for word in other:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & every
    return len(one) - row.bit_count()


def _plain(text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.removesuffix(".").removesuffix("。").rstrip()


def _last(text: str) -> Decimal | None:
    """The last number of a text: with thousands, a currency, a fraction or an exponent; a percent sign or unit does not count."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    number = None
    for match in _NUMBER.finditer(plain):
        sign, digits, exponent, divisor = match.groups(default="")
        value = Decimal(f"{sign}{digits.replace(',', '')}{exponent}")
        whole = Decimal(divisor or "1")
        number = value / whole if whole else value
    return number
