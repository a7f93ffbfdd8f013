"""Columns of a table as `Rows`, with warnings about cells that are easily misread."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.cells import (
    SEPARATOR,
    CellError,
    is_missing_word,
    label_names,
    messages_of,
    number_of,
    numbers_of,
    passages_of,
    texts_of,
)
from mangakd.data.notices import Notices, log, short
from mangakd.data.rows import ColumnKind, Rows
from mangakd.data.tables import Table, text_of


@dataclass(frozen=True)
class Column:
    """A column to read. name: in the file, or its position from 0. key: what the user sets it by, for messages."""

    kind: ColumnKind
    name: str | int | None
    key: str


def table_rows(table: Table, columns: Mapping[str, Column], origin: str) -> Rows:
    """Rows of some columns. What is missing is "", () or NaN, for the checks to refuse.

    Raises UserError for columns that are not there and cells that are not of the column's kind, and in a `labels` column for a
    missing cell, which is not the empty set.
    """
    if not table.names:
        raise UserError(f"{origin} has no rows.")
    names = {name: table.named(column.name, column.key, origin) for name, column in columns.items()}
    for one, other in combinations(columns, 2):
        if names[one] == names[other]:
            raise UserError(f"{columns[one].key} and {columns[other].key} are both {names[one]!r}; they must differ.")
    _check_header(table, columns, names, origin)
    notices = Notices(origin, table.unit)
    read = {name: _read(table, column, names[name], origin, notices) for name, column in columns.items()}
    notices.log()
    return Rows(read, list(table.numbers), origin, table.unit)


def _check_header(table: Table, columns: Mapping[str, Column], names: Mapping[str, str], origin: str) -> None:
    """Warns of a first line that may be a row. Raises UserError where it is one, and for labels that are misread."""
    keys = " and ".join(column.key for column in columns.values())
    by_place = [
        name for name, column in columns.items() if names[name] != str(column.name) and str(column.name).isdecimal()
    ]
    for name in (name for name, column in columns.items() if column.kind in ("label", "labels")):
        if table.joined and name in by_place and names[name] in table.column(names[name]):
            raise UserError(
                f"{origin}: its first line is taken for the header, but {names[name]!r} is also a label. Put a header line "
                f"before it, for example {','.join(columns)}, and set {keys} to these names."
            )
    if table.joined and by_place:
        log.warning(
            "%s: the first line (%s) is taken for the header. If it is a row, put a header line before it; else set %s to the "
            "names in it.", origin, short(", ".join(table.names)), keys,
        )  # fmt: skip
    for name, column in columns.items():
        if column.kind in ("label", "labels"):
            table.check_label(names[name])


def _read(table: Table, column: Column, name: str, origin: str, notices: Notices) -> list[Any]:
    """The cells of the column `name` as values of its kind."""
    cells = zip(table.numbers, table.column(name), strict=True)
    if column.kind == "messages" and table.joined:
        raise UserError(
            f"{column.key}={name} is {MESSAGES}, which CSV and TSV cannot hold: write {origin} as JSONL or Parquet."
        )
    if column.kind not in ("label", "labels"):
        values = [_value(value, column, f"{table.unit} {place} of {origin}") for place, value in cells]
        if column.kind in ("text", "texts", "answer", "answers", "passages", "turns"):
            _note_missing_words("texts", values, list(table.numbers), notices)
        return values
    labels = _Labels(table, origin, column.kind == "labels", column.key, notices)
    names = [labels.of(value, place) for place, value in cells]
    labels.check_separators()
    return names


MESSAGES = 'a list of messages {"role": "user", "content": "a text"}'
_READ: dict[ColumnKind, tuple[Callable[[Any], Any], str]] = {
    "number": (number_of, "not a finite number. Correct the cell, or"),
    "numbers": (numbers_of, "not a list of finite numbers such as [1, 0]. Correct the cell, or"),
    "texts": (texts_of, 'not a list of texts such as ["one", "two"] (in CSV and TSV in JSON). Correct the cell, or'),
    "passages": (passages_of, "not a text or a list of texts. Correct the cell, or"),
    "messages": (messages_of, f"not {MESSAGES}. Correct the cell, or"),
    "answers": (passages_of, "not a text or a list of texts. Correct the cell, or"),
    "turns": (passages_of, "not a text or a list of texts. Correct the cell, or"),
}


def _value(cell: Any, column: Column, where: str) -> Any:
    if column.kind in ("text", "answer", "name", "group"):
        return text_of(cell, where, column.key)
    read, expected = _READ[column.kind]
    try:
        return read(cell)
    except CellError as error:
        raise UserError(f"{where} {error}, {expected} set {column.key}.") from error


def _note_missing_words(
    what: str, values: Sequence[str | tuple[str, ...]], numbers: list[int], notices: Notices
) -> None:
    for number, value in zip(numbers, values, strict=True):
        for text in (value,) if isinstance(value, str) else value:
            if is_missing_word(text):
                notices.add(f"{what} that are a word for a missing value, read as they are written", number, text)


class _Labels:
    """Reads the cells of a label column."""

    def __init__(self, table: Table, origin: str, several: bool, key: str, notices: Notices) -> None:
        self._table, self._origin, self._key, self._notices = table, origin, key, notices
        self._several = several
        self._strings: dict[str, int] = {}  # names from cells that are one string, and where each is first

    def of(self, value: Any, number: int) -> tuple[str, ...]:
        where = f"{self._table.unit} {number} of {self._origin}"
        try:
            names = label_names(value, self._several, self._table.joined)
        except CellError as error:
            raise UserError(
                f"{where} {error}. A label is a name or a list of names: set {self._key}, or correct the cell. Several labels "
                f"are a list in JSON and Parquet and a{SEPARATOR}b in CSV and TSV (task.problem=multi_label)."
            ) from error
        if names is None and self._several:
            raise UserError(f"{where} has no label. Fill or remove it; a row that has none of the labels holds [].")
        if isinstance(value, str) and names:
            self._note(value, names, number)
        return names or ()

    def check_separators(self) -> None:
        """Raises UserError in multi-label tasks where names are joined by `;` or `,`: a part of one is also elsewhere."""
        for separator in ";," if self._several else "":
            parts = {
                name: {part.strip() for part in name.split(separator)} for name in self._strings if separator in name
            }
            counts = Counter(part for each in parts.values() for part in each)
            for name, each in parts.items():
                if any(part in self._strings or counts[part] > 1 for part in each):
                    raise UserError(
                        f"{self._table.unit} {self._strings[name]} of {self._origin} holds {name!r}, several labels in one cell: "
                        f"join them by {SEPARATOR} in CSV and TSV, or give a list in JSON."
                    )

    def _note(self, cell: str, names: tuple[str, ...], number: int) -> None:
        if names != (cell.strip(),) and cell.strip()[:1] in tuple("[({"):
            self._notices.add("labels that are a list written as text, read as that list", number, cell)
            return
        for name in names:
            self._strings.setdefault(name, number)
        if SEPARATOR in cell and len(names) == 1:
            if self._several or self._table.joined:
                how = "a list of names" if self._several else "task.problem=multi_label"
                self._notices.add(
                    f"labels with {SEPARATOR} in them, each read as one name (for several labels: {how})", number, cell
                )
        elif cell != cell.strip():
            self._notices.add("labels with blanks around them, which are left out", number, cell)
        _note_missing_words("labels", [cell], [number], self._notices)
