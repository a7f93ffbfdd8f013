"""What a cell of a table means: a text, a number, a list of either, messages, or the names of the labels of a row.

Raises `CellError` with what is wrong with the cell; the caller adds file, row and column.
"""

import ast
import contextlib
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from mangakd.data.json_text import parse
from mangakd.data.notices import short
from mangakd.data.rows import Message, Messages

SEPARATOR = "|"  # of labels in one cell of CSV and TSV
ROLES = ("system", "developer", "user", "assistant", "tool")
_MISSING_WORDS = frozenset(("nan", "na", "n/a", "#n/a", "<na>", "nat", "none", "null"))
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_LIKE_LIST = r"\[\s*(?:[\"'\[]|np\.)|array\("
_LIKE_LIST_OF_SEVERAL = _LIKE_LIST + r"|\[|[({]\s*[\"'].*[\"']|\{.*,"
_PLAIN_NUMBER = r"(?:0|[1-9]\d*)?\.?\d*(?:[eE][+-]?\d+)?"  # not 007, 0x10 or 1_000
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_EMPTY_SETS = ("set()", "()", "{}")


class CellError(ValueError):
    """The end of a sentence that starts with `row 5 of data.path=… `."""


def spelled(value: Any) -> str | None:
    """A scalar as text, None where it is missing (null, NaN). A whole number is written without `.0`.

    Raises CellError for infinity and for what is no scalar.
    """
    if value is None or value != value:
        return None
    if isinstance(value, float | Decimal):
        if math.isinf(value):
            raise CellError(f"holds {value}")
        return str(int(value)) if value == int(value) else str(value)
    if not isinstance(value, str | int):
        raise CellError(f"holds a {type(value).__name__}")
    return str(value)


def number_of(value: Any) -> float:
    """A finite number, NaN where it is missing (null, NaN, an empty text).

    Raises CellError for infinity, true and false, and texts that are no plain decimal number.
    """
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, str):
        plain = re.fullmatch(_NUMBER, value.strip(), re.ASCII) is not None
    else:
        plain = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    with contextlib.suppress(OverflowError):  # of a whole number
        if plain and math.isfinite(read := float(value)):
            return read
    raise CellError(f"holds {short(value)}")


def texts_of(value: Any) -> tuple[str, ...]:
    """The texts of a list, "" for one that is missing; () where the cell is missing. Raises CellError for all else."""
    return tuple(spelled(item) or "" for item in _list_of(value))


def passages_of(value: Any) -> tuple[str, ...]:
    """The texts of a list as of `texts_of`, or the one text of a cell that is no list; () where the cell is missing."""
    with contextlib.suppress(CellError):
        return texts_of(value)
    return (spelled(value) or "",)


def messages_of(value: Any) -> Messages:
    """(role, content) of each message of a conversation; () where the cell is missing. Raises CellError for all else.

    A system message may be blank, no other.
    """
    if value is None or value != value:
        return ()
    if not isinstance(value, list | tuple):
        raise CellError(f"holds {short(value)}")
    return tuple(_message(each, place) for place, each in enumerate(value, 1))


def _message(message: Any, place: int) -> Message:
    if not isinstance(message, dict):
        raise CellError(f"holds {short(message)} as message {place}")
    role, content = message.get("role"), message.get("content")
    others = [key for key, each in message.items() if key not in ("role", "content") and each is not None]
    if others:
        raise CellError(f"holds {short(others[0])} in message {place}, which is not read")
    if role not in ROLES:
        raise CellError(f"holds the role {short(role)} in message {place} (known: {', '.join(ROLES)})")
    if not isinstance(content, str) or (not content.strip() and role != "system"):
        raise CellError(f"holds the content {short(content)} in message {place}")
    return role, content


def numbers_of(value: Any) -> tuple[float, ...]:
    """The finite numbers of a list, NaN for one that is missing; () where the cell is missing. Raises CellError for all else."""
    return tuple(number_of(item) for item in _list_of(value))


def _list_of(value: Any) -> Sequence[Any]:
    """The items of a list, also of one that is written as JSON in a cell."""
    if isinstance(value, list | tuple):
        return value
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return ()
    with contextlib.suppress(ValueError):
        if isinstance(value, str) and isinstance(items := parse(value), list):
            return items
    raise CellError(f"holds {short(value)}")


def is_missing_word(text: str) -> bool:
    """Whether a text is no more than a word that some programs write for a missing value."""
    return text.strip().casefold() in _MISSING_WORDS


def label_names(value: Any, several: bool, joined: bool) -> tuple[str, ...] | None:
    """Names of a cell: a scalar, a list, a list written as text, or `a|b`. None where the cell is missing.

    several: the task is multi-label. joined: the file is CSV or TSV, which have no lists: there `|` joins names, and an empty
    cell is the empty set; both in multi-label tasks only. Names lose the blanks around them.
    """
    if isinstance(value, str) and (items := text_list(value, several)) is not None:
        value = items
    if isinstance(value, list | tuple):
        return _unique(_items(value))
    text = spelled(value)
    if text is None or not text.strip():
        return () if several and joined else None
    return split_joined(text) if several and joined else (text.strip(),)


def split_joined(cell: str) -> tuple[str, ...]:
    return _unique(name for part in cell.split(SEPARATOR) if (name := part.strip()))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _items(values: list[Any] | tuple[Any, ...]) -> list[str]:
    names = [spelled(value) for value in values]
    if any(name is None or not name.strip() for name in names):
        raise CellError("holds a list with a missing value in it")
    vector = len(set(names)) < len(names) or sorted(map(str, names)) in (["0", "1"], ["False", "True"])
    if vector and not any(isinstance(value, str) for value in values):
        raise CellError("holds a list of numbers that looks like a vector of 0 and 1; give names instead")
    return [str(name).strip() for name in names]


def text_list(cell: str, several: bool) -> list[Any] | None:
    """The items of a list that Python, JSON, pandas or numpy wrote as text; None for any other text.

    Single-label names may stand in brackets, such as "(other)"; only `[…]` is read as a list there. Raises CellError for a list
    that cannot be read.
    """
    cell = cell.strip()
    if several and cell in _EMPTY_SETS:
        return []
    items = None
    if cell[-1:] == _BRACKETS.get(cell[:1]):
        square = cell.startswith("[")
        items = _items_of_json(cell) if square else None
        if items is None and (square or several):
            items = _items_of_literals(cell)
    if items is None and re.match(_LIKE_LIST_OF_SEVERAL if several else _LIKE_LIST, cell):
        raise CellError(f"holds {short(cell)}, a list that cannot be read")
    return items


def _items_of_json(cell: str) -> list[Any] | None:
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return None
    except (ValueError, RecursionError) as error:  # an integer of over 4300 digits; too many brackets
        raise CellError(f"holds {short(cell)}, a list that cannot be read") from error


def _items_of_literals(cell: str) -> list[Any] | None:
    """Strings and numbers between brackets. Python would join the strings of numpy's `['a' 'b']`, so tokens are read."""
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(cell).readline) if token.string.strip()]
        items = [token for token in tokens[1:-1] if token.string != ","]
        kinds = (tokenize.STRING, tokenize.NUMBER) if cell.startswith("[") else (tokenize.STRING,)
        if any(token.type not in kinds for token in items) or not all(map(_is_plain, items)):
            return None
        if any(one.end == other.start for one, other in pairwise(items)):  # 'don''t' is no list of two
            return None
        return [ast.literal_eval(token.string) for token in items]
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None


def _is_plain(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.STRING or re.fullmatch(_PLAIN_NUMBER, token.string) is not None
