"""`Source`: the rows of a file as records, one at a time. Rows that no task can read are records with a problem."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.columns import Column, table_rows
from mangakd.data.notices import log
from mangakd.data.rows import ColumnKind, Columns, Rows, companies
from mangakd.data.tables import Table, existing, read_table
from mangakd.labelling.curate.layouts import Layout, layout_of
from mangakd.labelling.curate.record import Record

CONVERSATION = "conversation"  # a column that keeps rows together in every layout


@dataclass(frozen=True)
class Reading:
    """How a file is read: see `layout_of`. key: of the file, for messages."""

    task: str | None = None
    texts: tuple[str, ...] = ()
    names: Mapping[str, str | int] | None = None
    several: bool = False
    key: str = "data.path"


class Source:
    """Raises UserError for a file that cannot be read or that no layout fits."""

    def __init__(self, path: str | None, reading: Reading) -> None:
        self.file = existing(path, reading.key)
        self._origin = f"{reading.key}={path}"
        self._table = read_table(self.file, reading.key)
        names = dict(reading.names or {})
        self.layout = layout_of(self._table, reading.task, reading.texts, names, reading.several, self._origin)
        self._columns = _columns(self._table, self.layout, names)
        self._names = {
            name: self._table.named(each.name, each.key, self._origin) for name, each in self._columns.items()
        }
        self._cells = {name: self._table.column(name) for name in self._table.names}
        self._rows, self._places, self._problems = self._read()
        self._companions = [*companies(self._rows, self.kinds)] if len(self._rows) else []

    def __len__(self) -> int:
        return len(self._table.numbers)

    @property
    def unit(self) -> str:
        """What row numbers count: line, row or entry."""
        return self._table.unit

    @property
    def fixed(self) -> frozenset[str]:
        """Columns of the file that hold no free text: labels, numbers, and names that keep rows together."""
        kinds = ("label", "labels", "number", "numbers", "name", "group")
        return frozenset(self._names[name] for name, kind in self.kinds.items() if kind in kinds)

    @property
    def order(self) -> Sequence[str]:
        """The columns of the file, those of the layout first."""
        return list(dict.fromkeys([*self._names.values(), *self._table.names]))

    def records(self) -> Iterator[Record]:
        for i in range(len(self)):
            yield self.record(i)

    def record(self, i: int) -> Record:
        """The row at position i, from 0."""
        number = self._table.numbers[i]
        if i in self._problems:
            return Record(number, self._raw(i), problem=self._problems[i])
        row = self._rows.take([self._places[i]])
        answers = [text for name in self.layout.answers for text in self._texts(row, name, answers=True)]
        prompts = [text for name in self.layout.prompts for text in self._texts(row, name, answers=False)]
        return Record(
            number, self._plain(i, row), "\n".join(prompts), "\n".join(answers), self._rest(row), self._problem(row)
        )

    def value(self, i: int, column: str) -> Any:
        """The value of a column of the layout in the row at position i."""
        return self._rows[column][self._places[i]]

    @property
    def kinds(self) -> Columns:
        return {name: each.kind for name, each in self._columns.items()}

    def _read(self) -> tuple[Rows, dict[int, int], dict[int, str]]:
        """The rows that can be read, position → place among them, and position → why it cannot be read."""
        table_rows(
            _part(self._table, self._cells, []), self._columns, self._origin
        )  # names that are wrong for all rows
        try:
            rows = table_rows(self._table, self._columns, self._origin)
            return rows, {i: i for i in range(len(self))}, {}
        except UserError:
            problems = dict(self._unreadable())
        good = [i for i in range(len(self)) if i not in problems]
        rows = table_rows(_part(self._table, self._cells, good), self._columns, self._origin)
        return rows, {i: place for place, i in enumerate(good)}, problems

    def _unreadable(self) -> Iterator[tuple[int, str]]:
        with _quiet():
            for i in range(len(self)):
                try:
                    table_rows(_part(self._table, self._cells, [i]), self._columns, self._origin)
                except UserError as error:
                    yield i, self._local(error)

    def _rest(self, row: Rows) -> str:
        texts = {*self.layout.prompts, *self.layout.answers}
        return repr(
            [v[0] for name, v in row.columns.items() if name not in texts and self.kinds[name] not in ("name", "group")]
        )

    def _local(self, error: UserError) -> str:
        """Without the file's path: it is written into files that are passed on."""
        return str(error).replace(f" of {self._origin}", "")

    def _problem(self, row: Rows) -> str:
        try:
            self.layout.check(row)
        except UserError as error:
            return self._local(error)
        return ""

    def _raw(self, i: int) -> dict[str, Any]:
        return {name: values[i] for name, values in self._cells.items() if values[i] is not None}

    def _plain(self, i: int, row: Rows) -> dict[str, Any]:
        """The cells as JSON and Parquet hold them: a list of a CSV cell is text there."""
        cells = self._raw(i)
        if self._table.joined:
            cells |= {self._names[name]: _listed(values[0], self.kinds[name]) for name, values in row.columns.items()}
        return cells

    def keys(self, i: int) -> tuple[str, ...]:
        """What keeps the row at position i together with others, as a split of training does, and its conversation."""
        conversation = self._cells[CONVERSATION][i] if CONVERSATION in self._cells else None
        return (self._companions[self._places[i]], *([f"{CONVERSATION}\0{conversation}"] if conversation else []))

    def _texts(self, row: Rows, name: str, answers: bool) -> Sequence[str]:
        """Of a column of answers, or of prompts; messages hold both, and system messages are neither."""
        if name not in row:
            return ()
        value = row[name][0]
        if self.kinds[name] != "messages":
            return [value] if isinstance(value, str) else [text for text in value if isinstance(text, str)]
        answer = next((i for i in reversed(range(len(value))) if value[i][0] == "assistant"), None)
        if answers:
            return [] if answer is None else [value[answer][1]]
        return [text for i, (role, text) in enumerate(value) if role not in ("system", "developer") and i != answer]


def _columns(table: Table, layout: Layout, names: Mapping[str, str | int]) -> dict[str, Column]:
    """The layout's columns that the file has, and those that the user named."""
    unknown = names.keys() - layout.columns.keys()
    if unknown:
        raise UserError(
            f"data.columns.{min(unknown)} is no column of {layout.name}, which has {', '.join(layout.columns)}."
        )
    columns = {
        name: Column(kind, names.get(name, name), f"data.columns.{name}") for name, kind in layout.columns.items()
    }
    needed = layout.answers if layout.name == "texts" else ()
    return {name: each for name, each in columns.items() if each.name != name or name in needed or table.has(name)}


def _part(table: Table, cells: Mapping[str, list[Any]], places: Sequence[int]) -> Table:
    numbers = [table.numbers[i] for i in places]
    return replace(table, column=lambda name: [cells[name][i] for i in places], numbers=numbers)


def _listed(value: Any, kind: ColumnKind) -> Any:
    if kind == "label":
        return value[0] if value else ""
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings about cells: reading all good rows together gives them once."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
