"""Answers as lists of texts: a line each, with or without marks, or a list in JSON."""

import re
from collections.abc import Sequence
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.json_text import parse
from mangakd.data.rows import identity
from mangakd.labelling.forms.form import Unusable

_MARK = re.compile(r"\s*(?:\d{1,2}[.):]|[-*•])\s+")
_QUOTES = {'"': '"', "“": "”", "「": "」"}


def texts_of(answer: str) -> list[str]:
    """The different texts of an answer, in its order.

    Where a line has a mark of a list (`1.`, `2)`, `-`, `*`, `•`), lines without one are words about the list. Texts that differ
    in case and blanks alone are one. Raises Unusable for JSON that holds no list of texts.
    """
    lines = answer.splitlines()
    marked = [line for line in lines if _MARK.match(line)]
    if (listing := json_texts(answer)) is None:
        listing = [_MARK.sub("", line, count=1) for line in marked or lines]
    texts = [_without_quotes(line.strip()) for line in listing]
    first: dict[str, str] = {}
    for text in filter(None, texts):
        first.setdefault(identity(text).casefold(), text)
    return [*first.values()]


def json_texts(answer: str) -> list[str] | None:
    """The texts of a list in JSON, alone or as the one entry of an object; None for an answer that is no JSON."""
    value = json_value(answer)
    if not isinstance(value, list | dict):
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Unusable("no list of texts", answer)
    return value


def json_value(answer: str) -> Any:
    """What an answer in JSON holds; of an object with one entry that entry. None for an answer that is no list and no object."""
    if answer.strip()[:1] not in ("{", "["):
        return None
    try:
        value = parse(answer)
    except ValueError:
        return None
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def check_counts(least: object, most: object, key: str) -> None:
    """Raises UserError for counts that no list of texts can have."""
    if not (isinstance(least, int) and isinstance(most, int) and 1 <= least <= most):
        raise UserError(f"{key}.least={least} and {key}.most={most} must be whole numbers, 1 ≤ least ≤ most.")


def _without_quotes(text: str) -> str:
    return text[1:-1].strip() if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] else text


def counted(texts: Sequence[str], least: int, most: int) -> list[str]:
    """The first `most` texts. Raises Unusable for fewer than `least`."""
    if len(texts) < least:
        raise Unusable(f"fewer than {least} texts", f"{len(texts)}")
    return [*texts[:most]]
