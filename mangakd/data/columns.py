"""The text column and the label column of a table as `Rows`, with warnings about cells that are easily misread."""

from collections import Counter
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Problem
from mangakd.data.cells import SEPARATOR, CellError, is_missing_word, label_names
from mangakd.data.notices import Notices, log, short
from mangakd.data.rows import Rows
from mangakd.data.tables import Table, text_of

Keys = tuple[str, str]
DATA_KEYS = ("data.text_column", "data.label_column")


def table_rows(
    table: Table,
    text: str | int | None,
    label: str | int | None,
    origin: str,
    problem: Problem = "single_label",
    keys: Keys = DATA_KEYS,
) -> Rows:
    """Rows of two columns. A missing text is "" and a missing label () for the checks to refuse.

    keys: what sets the columns, for messages. Raises UserError for columns that are not there and cells that are neither text nor
    label, and in multi-label tasks for a missing label, which is not the empty set.
    """
    if not table.names:
        raise UserError(f"{origin} has no rows.")
    given = text, label
    text, label = table.named(text, keys[0], origin), table.named(label, keys[1], origin)
    if text == label:
        raise UserError(f"{keys[0]} and {keys[1]} are both {text!r}; they must differ.")
    by_place = [
        name for name, key in zip((text, label), given, strict=True) if name != str(key) and str(key).isdecimal()
    ]
    if table.joined and label in by_place and label in table.column(label):
        raise UserError(
            f"{origin}: its first line is taken for the header, but {label!r} is also a label. Put a header line before it, for "
            f"example text,label, and set {keys[0]} and {keys[1]} to these names."
        )
    if table.joined and by_place:
        log.warning(
            "%s: the first line (%s) is taken for the header. If it is a row, put a header line before it; else set %s and %s to "
            "the names in it.",
            origin,
            short(", ".join(table.names)),
            *keys,
        )
    table.check_label(label)
    numbers = list(table.numbers)
    notices = Notices(origin, table.unit)
    texts = [
        text_of(value, f"{table.unit} {number} of {origin}", keys[0])
        for number, value in zip(numbers, table.column(text), strict=True)
    ]
    _note_missing_words("texts", texts, numbers, notices)
    names = _Labels(table, origin, problem, keys[1], notices)
    labels = [names.of(value, number) for number, value in zip(numbers, table.column(label), strict=True)]
    names.check_separators()
    notices.log()
    return Rows(texts, labels, numbers, origin, table.unit)


def _note_missing_words(what: str, texts: list[str], numbers: list[int], notices: Notices) -> None:
    for number, text in zip(numbers, texts, strict=True):
        if is_missing_word(text):
            notices.add(f"{what} that are a word for a missing value, read as they are written", number, text)


class _Labels:
    """Reads the cells of a label column."""

    def __init__(self, table: Table, origin: str, problem: Problem, key: str, notices: Notices) -> None:
        self._table, self._origin, self._key, self._notices = table, origin, key, notices
        self._several = problem == "multi_label"
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
