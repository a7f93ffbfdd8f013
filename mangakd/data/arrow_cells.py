"""Columns of Arrow tables as Python objects: short floats as they were typed, class ids by the names that `datasets` wrote.

Columns of vectors become one array: as Python objects they would take eight times as much memory, and minutes.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mangakd.core.errors import UserError


def arrow_values(table: pa.Table, name: str, origin: str) -> list[Any]:
    """Values of a column. Raises UserError for bytes that are not UTF-8 and for a class id without a name."""
    column = table[name]
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as error:
        row = next(i for i, cell in enumerate(column, 1) if not _is_readable(cell))
        raise UserError(f"row {row} of {origin} holds bytes in {name!r} that are not UTF-8. Fix the row.") from error
    names = _class_names(table.schema, name)
    if names is None:
        return [_shortest(value) for value in values] if _is_short_float(column.type) else values
    return [_named_class(value, names, f"row {row} of {origin}") for row, value in enumerate(values, 1)]


def arrow_matrix(table: pa.Table, name: str) -> np.ndarray | None:
    """(N, D) of a column of lists of D numbers; None for any other column, and where lists differ in length or lack a value."""
    kind = table.schema.field(name).type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        return None
    chunks = [chunk for chunk in table[name].chunks if len(chunk)]
    widths = {width for chunk in chunks for width in pc.unique(pc.list_value_length(chunk)).to_pylist()}
    values = [chunk.flatten() for chunk in chunks]
    if len(widths) != 1 or not all(widths) or any(each.null_count for each in values):
        return None
    return np.concatenate([each.to_numpy(zero_copy_only=False) for each in values]).reshape(-1, *widths)


def _is_short_float(kind: pa.DataType) -> bool:
    """Whether a column holds floats of 16 or 32 bits, or lists of them."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_short_float(kind.value_type)
    return pa.types.is_float16(kind) or pa.types.is_float32(kind)


def _shortest(value: Any) -> Any:
    """The shortest decimal that is this float: 0.1, not 0.10000000149011612."""
    if isinstance(value, list):
        return [_shortest(item) for item in value]
    return None if value is None else float(str(np.float32(value)))


def _is_readable(cell: pa.Scalar) -> bool:
    try:
        cell.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Names of a ClassLabel, or of a list of them, in the metadata that `datasets` writes."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
    except (KeyError, TypeError, ValueError):
        return None
    if isinstance(feature, list):
        feature = feature[0]
    feature = feature.get("feature", feature)
    return feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None


def _named_class(value: Any, names: list[str], where: str) -> Any:
    """-1 stands for a label that is withheld, as in the test splits of competitions. pandas makes floats of ids beside NaN."""
    if isinstance(value, list):
        return [_named_class(item, names, where) for item in value]
    if value is None or value == -1 or value != value:
        return None
    if isinstance(value, str):
        return value
    if value != int(value) or not 0 <= value < len(names):
        raise UserError(
            f"{where} holds the class id {value}; the schema of the file names {len(names)} classes, from 0 on."
        )
    return names[int(value)]
