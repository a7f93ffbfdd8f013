"""Rows as files that tasks read: JSONL and Parquet. Equal rows give equal bytes."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from mangakd.core.errors import UserError
from mangakd.runtime.tokenise import whole
from mangakd.store.files import write_atomic

FORMATS = ("jsonl", "parquet")
Cells = Mapping[str, Any]


def write_rows(rows: Iterable[Cells], file: Path) -> str:
    """Write the rows by the file's ending. Returns the hex digest of SHA-256."""
    return _write_parquet([*rows], file) if file.suffix == ".parquet" else write_lines(rows, file)


def write_lines(rows: Iterable[Cells], file: Path) -> str:
    """JSONL, one row at a time."""
    return write_atomic(file, lambda stream: stream.writelines(line(row) for row in rows))


def line(row: Cells) -> bytes:
    cells = {name: plain(value) for name, value in row.items()}
    return (
        json.dumps({name: value for name, value in cells.items() if value is not None}, ensure_ascii=False).encode()
        + b"\n"
    )


def plain(value: Any) -> Any:
    """A cell as JSON has it: None for NaN, lists, whole texts; a text for what JSON lacks, such as a date."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value)


def _write_parquet(rows: Sequence[Cells], file: Path) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: _column(name, [plain(row.get(name)) for row in rows]) for name in names})
    return write_atomic(file, lambda stream: pyarrow.parquet.write_table(table, stream))


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    """An object, such as `written_by`, becomes JSON text: Parquet would give all rows the keys of all objects."""
    try:
        return pa.array(
            [json.dumps(each, ensure_ascii=False) if isinstance(each, Mapping) else each for each in values]
        )
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"column {name} cannot be written as Parquet: {reason}. Set format=jsonl.") from error
