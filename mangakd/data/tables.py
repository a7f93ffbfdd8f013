"""Files as tables: CSV, TSV, JSON, JSONL, Arrow, Feather and Parquet by their ending, with one way to ask for a column.

JSON is read line by line in Python and not by Arrow: Arrow demands one type for each column and cannot name the line, and
a label column that mixes 3 and "three" is for the checks in source.py to judge, not for a parser.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mangakd.core.errors import UserError, near

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".arrow", ".feather", ".parquet")


@dataclass(frozen=True)
class Table:
    """names: columns in the file's order. column: name → its values as Python objects, None where there is none."""

    names: list[str]
    column: Callable[[str], list[Any]]

    @classmethod
    def of_arrow(cls, table: pa.Table) -> "Table":
        return cls(list(table.column_names), lambda name: table[name].to_pylist())

    @classmethod
    def of_rows(cls, rows: list[dict[str, Any]]) -> "Table":
        """A key may be absent from some rows; columns are in the order in which they first appear."""
        return cls(
            list(dict.fromkeys(key for row in rows for key in row)), lambda name: [row.get(name) for row in rows]
        )


def existing(path: str | None, key: str) -> Path:
    """The file behind a key; UserError when it is not set, not there, a folder or empty."""
    if path is None:
        raise UserError(f"{key} is not set: give the file, for example {key}=data/train.csv.")
    file = Path(path).expanduser()
    if file.is_dir():
        held = sorted(p.name for p in file.iterdir() if p.suffix.lower() in ENDINGS)
        raise UserError(f"{key}={path} is a folder, not a file; it holds {_some(held)}. Give {key} one file.")
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
    ending = file.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"{key}={file}: unknown ending {ending!r}; known: {' '.join(ENDINGS)}.")
    try:
        match ending:
            case ".csv" | ".tsv":
                return Table.of_arrow(_csv(file))
            case ".jsonl" | ".ndjson":
                return _json_lines(file, key)
            case ".json":
                return _json_list(file, key)
            case ".arrow" | ".feather":
                return Table.of_arrow(_arrow(file))
        return Table.of_arrow(pyarrow.parquet.read_table(file))
    except UnicodeDecodeError as error:
        raise UserError(_encoding(file, key)) from error
    except (pa.ArrowException, OSError) as error:
        if "utf8" in str(error).lower():
            raise UserError(_encoding(file, key)) from error
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{key}={file} could not be read as {ending}: {reason}. Mend the file, or rename it to what it is."
        ) from error


def read_texts(path: str, column: str, key: str, column_key: str) -> list[str]:
    """Unlabelled texts: the lines of a .txt file, or a column of any table. Raises UserError where there is none.

    key, column_key: what the user set, for messages.
    """
    file = existing(path, key)
    if file.suffix.lower() == ".txt":
        try:
            values: list[Any] = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(_encoding(file, key)) from error
    else:
        table = read_table(file, key)
        if column not in table.names:
            raise UserError(
                f"{key}={path} has no column {column!r} ({column_key}){near(column, table.names)} "
                f"It has {_some(table.names)}."
            )
        values = table.column(column)
    texts = [str(value).strip() for value in values if value is not None and str(value).strip()]
    if not texts:
        raise UserError(f"{key}={path} holds no text.")
    return texts


def read_json(file: Path, key: str) -> Any:
    """The content of a JSON file, with or without a byte order mark."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(_encoding(file, key)) from error
    except json.JSONDecodeError as error:
        raise UserError(f"{key}={file} is not JSON: {error}. Is it JSONL? Then give it the ending .jsonl.") from error


def _csv(file: Path) -> pa.Table:
    # All columns as text: a label column of digits must stay the names "0", "1", and "NA" is a text like any other.
    header = pyarrow.csv.open_csv(file, parse_options=_parse(file)).schema.names
    convert = pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in header}, strings_can_be_null=False)
    read = pyarrow.csv.ReadOptions(use_threads=False)  # only then does Arrow's message name the row it stumbled over
    return pyarrow.csv.read_csv(file, read, _parse(file), convert)


def _parse(file: Path) -> pyarrow.csv.ParseOptions:
    return pyarrow.csv.ParseOptions(delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True)


def _json_list(file: Path, key: str) -> Table:
    content = read_json(file, key)
    if not isinstance(content, list):
        held = (
            f"an object with the keys {_some(list(content))}" if isinstance(content, dict) else type(content).__name__
        )
        raise UserError(f'{key}={file} must be a JSON list of objects such as {{"text": …, "label": …}}; found {held}.')
    _check_objects(content, list(range(1, len(content) + 1)), key, file, "entry")
    return Table.of_rows(content)


def _json_lines(file: Path, key: str) -> Table:
    rows, lines = [], []
    with file.open(encoding="utf-8-sig") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{key}={file}: line {number} is not JSON: {error.msg}. Mend that line.") from error
            lines.append(number)
    _check_objects(rows, lines, key, file, "line")
    return Table.of_rows(rows)


def _check_objects(rows: list[Any], numbers: list[int], key: str, file: Path, what: str) -> None:
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


def _encoding(file: Path, key: str) -> str:
    return f"{key}={file} is not UTF-8 text. Convert it, for example: iconv -f latin1 -t utf-8 {file.name} > utf8-{file.name}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "") if names else "nothing that can be read"
