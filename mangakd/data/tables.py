"""Files as tables: CSV, TSV, JSON, JSONL, Arrow, Feather and Parquet by their ending, with one way to ask for a column.

JSON is read line by line in Python and not by Arrow: Arrow demands one type for each column and cannot name the line, and
a label column that mixes 3 and "three" is for the checks to judge, not for a parser.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from mangakd.core.errors import UserError, near
from mangakd.data.arrow_cells import arrow_matrix, arrow_values
from mangakd.data.cells import CellError, spelled
from mangakd.data.delimited import check_breaks, read_delimited
from mangakd.data.encoding import read_text
from mangakd.data.json_text import parse
from mangakd.data.notices import log
from mangakd.data.rows import whole_texts

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".arrow", ".feather", ".parquet")
_SAVED = ("dataset_info.json", "dataset_dict.json")  # in a folder of datasets.save_to_disk


@dataclass(frozen=True)
class Table:
    """names: columns in the file's order. column: name → its values as Python objects, None where there is none.

    numbers: where each row is in the file, counted in `unit`. joined: a cell of several labels is text, as in CSV.
    check_label: raises UserError for rows that the label column of that name shows to be misread. matrix: name → a column of
    lists of one length as (N, D), where that is possible without a look at each cell.
    """

    names: list[str]
    column: Callable[[str], list[Any]]
    numbers: Sequence[int] = ()
    unit: str = "row"
    joined: bool = False
    check_label: Callable[[str], None] = lambda name: None
    matrix: Callable[[str], np.ndarray | None] = lambda name: None

    @classmethod
    def of_arrow(cls, table: pa.Table, origin: str) -> "Table":
        """Class ids of a ClassLabel column become names, where the schema has what `datasets` writes into it."""
        return cls(
            list(table.column_names),
            lambda name: arrow_values(table, name, origin),
            range(1, table.num_rows + 1),
            matrix=lambda name: arrow_matrix(table, name),
        )

    @classmethod
    def of_objects(cls, rows: list[dict[str, Any]], numbers: Sequence[int], unit: str) -> "Table":
        """A key may be absent from some rows; columns are in the order in which they first appear."""
        names = list(dict.fromkeys(key for row in rows for key in row))
        return cls(names, lambda name: [row.get(name) for row in rows], numbers, unit)

    @classmethod
    def of_text(cls, text: str, separator: str, origin: str) -> "Table":
        """CSV and TSV. All cells are text: a label column of digits stays the names "0", "1"; an empty cell is ""."""
        header, rows, separator = read_delimited(text, separator, origin)

        def column(name: str) -> list[Any]:
            place = header.index(name)
            return [row.cells[place] for row in rows]

        def check_label(name: str) -> None:
            check_breaks(rows, header.index(name), separator, origin)

        return cls(header, column, [row.line for row in rows], "line", joined=True, check_label=check_label)

    def has(self, column: str | int | None) -> bool:
        """Whether `named` finds a column."""
        heading = str(column).strip().casefold()
        alike = any(name.strip().casefold() == heading for name in self.names)
        return alike or (heading.isdecimal() and int(heading) < len(self.names))

    def named(self, column: str | int | None, key: str, origin: str) -> str:
        """The column that a key names: exactly, or but for blanks and case, or by its position from 0.

        Raises UserError where there is none, or two of that name.
        """
        if column is None:
            raise UserError(f"{key}=null names no column of {origin}; it has {', '.join(map(_quoted, self.names))}.")
        heading = str(column)
        alike = [name for name in self.names if name.strip().casefold() == heading.strip().casefold()]
        if heading not in self.names and len(alike) == 1:
            heading = alike[0]
        elif heading not in self.names and heading.isdecimal() and int(heading) < len(self.names):
            heading = self.names[int(heading)]
        if self.names.count(heading) > 1:
            raise UserError(
                f"{origin} has {self.names.count(heading)} columns {heading!r}; rename all but one, or set {key} to another."
            )
        if heading not in self.names:
            header = " Is its first line a row? Then put a header line before it." if self.joined else ""
            if self.joined and len(self.names) == 1 and (other := re.search(r"""[^\w\s"'.-]""", self.names[0])):
                header = f" Is {other[0]!r} its separator? Then write it with ',' ';' a tab or '|' instead."
            raise UserError(
                f"{origin} has no column {heading!r}; it has {', '.join(map(_quoted, self.names))}. Set {key} to one of "
                f"these{near(heading, self.names)}{header}"
            )
        if heading != str(column):
            log.info("%s: %s=%s is the column %r.", origin, key, column, heading)
        return heading


def existing(path: str | None, key: str) -> Path:
    """The file behind a key; UserError when it is not set, not there, a folder or empty."""
    if path is None:
        raise UserError(f"{key} is not set: give the file, for example {key}=data/train.csv.")
    if not path.strip():
        raise UserError(f"{key} is empty: give the file, for example {key}=data/train.csv.")
    file = Path(path).expanduser()
    if file.is_dir():
        if any((file / name).is_file() for name in _SAVED):
            raise UserError(f"{key}={path} is a folder that datasets saved; read it with data=hub data.path={path}.")
        entries = sorted(p.name for p in file.iterdir() if p.suffix.lower() in ENDINGS)
        raise UserError(f"{key}={path} is a folder, not a file; it holds {_some(entries)}. Give {key} one file.")
    if not file.parent.is_dir():
        raise UserError(f"{key}={path}: there is no such file; the folder {file.parent} does not exist.")
    if not file.is_file():
        others = sorted(p.name for p in file.parent.iterdir() if p.is_file())
        raise UserError(f"{key}={path}: there is no such file{near(file.name, others)}")
    if file.stat().st_size == 0:
        raise UserError(f"{key}={path} is empty (0 bytes). Give {key} a file with rows.")
    return file


def read_table(file: Path, key: str) -> Table:
    """The table in a file, read by its ending. Raises UserError naming `key` where it cannot be parsed."""
    ending, origin = file.suffix.lower(), f"{key}={file}"
    if ending not in ENDINGS:
        raise UserError(f"{origin}: unknown ending {ending!r}; known: {' '.join(ENDINGS)}.")
    try:
        match ending:
            case ".csv" | ".tsv":
                return Table.of_text(read_text(file, key), SEPARATORS[ending], origin)
            case ".jsonl" | ".ndjson":
                return _json_lines(file, key)
            case ".json":
                return _json_list(file, key)
            case ".arrow" | ".feather":
                return Table.of_arrow(_arrow(file), origin)
        return Table.of_arrow(pyarrow.parquet.read_table(file), origin)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{origin} could not be read as {ending}: {reason}. Fix the file, or rename it.") from error


def read_texts(path: str, column: str | int, key: str, column_key: str) -> list[str]:
    """Unlabelled texts: the lines of a .txt file, or a column of any table; those that are blank are left out and counted.

    key, column_key: what the user set, for messages. Raises UserError where there is no text.
    """
    origin = f"{key}={path}"
    rows, unit = numbered_texts(existing(path, key), column, key, column_key)
    entries = [(number, text) for number, text in rows if text.strip()]
    if not entries:
        raise UserError(f"{origin} holds no text.")
    if len(entries) < len(rows):
        log.info("%s: %d of %d rows have no text and are left out.", origin, len(rows) - len(entries), len(rows))
    return whole_texts([text for _, text in entries], [number for number, _ in entries], origin, unit)


def numbered_texts(file: Path, column: str | int, key: str, column_key: str) -> tuple[list[tuple[int, str]], str]:
    """Each text with its place, "" where there is none, and what places count: the lines of a .txt file, or a table's column."""
    origin = f"{key}={file}"
    if file.suffix.lower() == ".txt":
        # Iterated, because str.splitlines would also split at U+2028, form feeds and the like.
        values: list[Any] = [line.rstrip("\r\n") for line in io.StringIO(read_text(file, key), newline="")]
        numbers, unit = list(range(1, len(values) + 1)), "line"
    else:
        table = read_table(file, key)
        values = table.column(table.named(column, column_key, origin))
        numbers, unit = list(table.numbers), table.unit
    rows = [
        (number, text_of(value, f"{unit} {number} of {origin}", column_key))
        for number, value in zip(numbers, values, strict=True)
    ]
    return rows, unit


def text_of(value: Any, where: str, key: str) -> str:
    """The text of a cell, "" where it is missing. Raises UserError for what is neither a text nor a number."""
    try:
        return spelled(value) or ""
    except CellError as error:
        raise UserError(f"{where} {error}, not a text. Set {key}.") from error


def read_json(file: Path, key: str) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark."""
    try:
        return parse(read_text(file, key))
    except json.JSONDecodeError as error:
        cure = "Is it JSONL? Then give it the ending .jsonl" if error.msg == "Extra data" else "Fix that place"
        raise UserError(f"{key}={file} is not JSON: {error}. {cure}.") from error


def _json_list(file: Path, key: str) -> Table:
    content = read_json(file, key)
    if not isinstance(content, list):
        what = (
            f"an object with the keys {_some(list(content))}" if isinstance(content, dict) else type(content).__name__
        )
        raise UserError(f'{key}={file} must be a JSON list of objects such as {{"text": …, "label": …}}; found {what}.')
    numbers = range(1, len(content) + 1)
    _check_objects(content, numbers, key, file, "entry")
    return Table.of_objects(content, numbers, "entry")


def _json_lines(file: Path, key: str) -> Table:
    rows, lines = [], []
    for number, line in enumerate(io.StringIO(read_text(file, key), newline=""), 1):
        if not line.strip():
            continue
        try:
            rows.append(parse(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{key}={file}: line {number} is not JSON: {error.msg}. Fix that line.") from error
        lines.append(number)
    _check_objects(rows, lines, key, file, "line")
    return Table.of_objects(rows, lines, "line")


def _check_objects(rows: list[Any], numbers: Sequence[int], key: str, file: Path, what: str) -> None:
    wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise UserError(
            f'{key}={file}: {what} {numbers[wrong]} must be an object such as {{"text": …, "label": …}}; '
            f"found {str(rows[wrong])[:40]!r}."
        )


def _arrow(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _quoted(name: str) -> str:
    """Quoted only where its ends cannot be seen otherwise."""
    return name if name and name == name.strip() else repr(name)


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "") if names else "nothing that can be read"
