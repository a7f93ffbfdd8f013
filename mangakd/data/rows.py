"""`Rows`: one split as named columns of equal length, each row with its place in the file it came from."""

import math
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from mangakd.data.notices import Notices
from mangakd.runtime.tokenise import whole

ColumnKind = Literal[
    "text", "texts", "label", "labels", "number", "numbers", "answer", "answers", "passages", "messages", "turns", "name", "group"
]  # fmt: skip
Columns = Mapping[str, ColumnKind]
"""The columns that a task needs. text: str. texts: a tuple of one text or more. label: one name, as a tuple of one. labels: a
tuple of any number of names. number: a finite float. numbers: a tuple of one finite float or more,
NaN for one that is missing. answer: str, a text that is learnt. passages: a tuple of one text or more, beside the text that they
belong to. messages: a tuple of one (role, content) or more, both str; the answers in it are learnt. answers: a tuple of texts,
each of which is learnt. turns: a tuple of the texts that came before the row's text; some may be blank. name: str, of rows that
are scored together; no model reads it. group: str, the same of rows that a split keeps together."""
Message = tuple[str, str]
Messages = tuple[Message, ...]
CLASSES: Columns = {"text": "text", "label": "label"}
NOTHING: Mapping[ColumnKind, Any] = {
    "text": "", "texts": (), "label": (), "labels": (), "number": math.nan, "numbers": (),
    "answer": "", "answers": (), "passages": (), "messages": (), "turns": (), "name": "", "group": "",
}  # fmt: skip
"""What a row holds where a cell is missing."""


def inputs(columns: Columns) -> list[str]:
    """The columns that a model reads; the others are what it learns."""
    return [name for name, kind in columns.items() if kind in ("text", "texts", "passages", "messages", "turns")]


def written(columns: Columns) -> list[str]:
    """The columns of texts, those that a model reads and those that it learns to write."""
    return [name for name, kind in columns.items() if name in inputs(columns) or kind in ("answer", "answers")]


def identifiers(columns: Columns) -> list[str]:
    """The inputs that tell rows apart: the columns of one text, such as a query, of messages and of turns; all inputs where there
    is no such column."""
    return [name for name, kind in columns.items() if kind in ("text", "messages", "turns")] or inputs(columns)


def strata(columns: Columns) -> str | None:
    """The column whose names keep their shares when rows are drawn; None where no column holds names."""
    return next((name for name, kind in columns.items() if kind in ("label", "labels")), None)


@dataclass(frozen=True)
class Rows:
    """One split. columns: name → N values.

    numbers: each row's place in its file, from 1, for messages. unit: what they count: `line` where the file has lines (a CSV's
    header is line 1), else `row`.
    """

    columns: Mapping[str, list[Any]]
    numbers: list[int] = field(default_factory=list)
    origin: str = ""
    unit: str = "row"

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the columns of a split must be of one length; found {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def take(self, positions: Sequence[int]) -> "Rows":
        numbers = [self.numbers[i] for i in positions] if self.numbers else []
        columns = {name: [values[i] for i in positions] for name, values in self.columns.items()}
        return replace(self, columns=columns, numbers=numbers)

    def only(self, names: Collection[str]) -> "Rows":
        return replace(self, columns={name: values for name, values in self.columns.items() if name in names})

    def place(self, i: int) -> str:
        """Such as `line 38`."""
        return f"{self.unit} {self.numbers[i] if self.numbers else i + 1}"

    def where(self, i: int) -> str:
        """Such as `line 38 of data.path=train.csv`."""
        return f"{self.place(i)} of {self.origin}" if self.origin else self.place(i)


def identity(text: str) -> str:
    """Equal for texts that differ in blanks or in the composition of their characters alone."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def identities(rows: Rows, columns: Columns) -> Iterator[str]:
    """What tells each row from the others. Rows of one query and different documents are equal: a split keeps them together.

    So are conversations with the same first question: one may be the beginning of the other.
    """
    names = identifiers(columns)
    for values in zip(*(rows[name] for name in names), strict=True):
        texts = [text for name, value in zip(names, values, strict=True) for text in _texts(value, columns[name])]
        yield "\0".join(map(identity, texts))


def companies(rows: Rows, columns: Columns) -> Iterator[str]:
    """What keeps rows together in a split: their group, or the first turn of their conversation, else their identity."""
    group = next((name for name, kind in columns.items() if kind == "group"), None)
    turns = next((name for name, kind in columns.items() if kind == "turns"), None)
    for i, own in enumerate(identities(rows, columns)):
        if group and rows[group][i]:
            yield f"{group}\0{rows[group][i]}"
        elif turns and (first := next(filter(str.strip, rows[turns][i]), "")):
            yield identity(first)
        else:
            yield own.strip("\0") if turns else own


def _texts(value: Any, kind: ColumnKind) -> Sequence[str]:
    """The texts of a cell that tell its row from others."""
    if kind == "messages":
        questions = [content for role, content in value if role == "user"]
        return questions[:1] or [content for _, content in value]
    return (value,) if isinstance(value, str) else value


def names_of(rows: Rows, column: str) -> tuple[str, ...]:
    """The names in a column of labels, sorted."""
    return tuple(sorted({name for names in rows[column] for name in names}))


Texts = TypeVar("Texts", str, tuple[str, ...], Messages)


def whole_texts(values: Sequence[Texts], numbers: Sequence[int], origin: str, unit: str) -> list[Texts]:
    """The texts without lone surrogates, replaced as the runtime does it, and a warning where there are any."""
    fixed = [_whole(value) for value in values]
    notices = Notices(origin, unit)
    for i, (value, new) in enumerate(zip(values, fixed, strict=True)):
        if value != new:
            notices.add(
                "texts with half a surrogate pair, which is replaced by U+FFFD",
                numbers[i] if numbers else i + 1,
                str(new),
            )
    notices.log()
    return fixed


def _whole(value: Any) -> Any:
    return whole(value) if isinstance(value, str) else tuple(map(_whole, value))
