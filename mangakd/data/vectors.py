"""Vectors of texts in files that others wrote, such as the answers of an embedding API.

.npy: an array (N, D), beside a file of its N texts in the same order. Other files are tables with a text and a list of numbers in
each row. Every vector is checked before any is used: a NaN or a shifted row would teach without an error.
N vectors, D dimensions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.cells import CellError, numbers_of
from mangakd.data.notices import short
from mangakd.data.rows import identity
from mangakd.data.tables import ENDINGS, existing, numbered_texts, read_table, text_of

KEY = "teacher.path"
BESIDE = (".txt", *ENDINGS)
_ROWS = 8192  # of a check, at a time
_ALIKE = 0.999  # cosine of two vectors of one text: APIs do not round alike twice


def is_file_of_vectors(path: str) -> bool:
    """Whether a path names such a file, and not a model."""
    return Path(path).suffix.lower() in (".npy", *ENDINGS)


@dataclass(frozen=True)
class Vectors:
    """places: a text (`identity`) → its row. table: (N, D), of a .npy file memory-mapped."""

    places: dict[str, int]
    table: np.ndarray


def read_vectors(path: str, texts: str | None, text_column: str | int, vector_column: str | int) -> Vectors:
    """texts: the file of the texts of a .npy; None for one of the same name beside it.

    Raises UserError for files that are none of these, and for the first vector that is not finite, is all zeros or has another
    width than the vectors before it, and for a text with two different vectors.
    """
    file = existing(path, KEY)
    if file.suffix.lower() == ".npy":
        table, names, where = _of_npy(file, texts, text_column)
    elif file.suffix.lower() in ENDINGS:
        table, names, where = _of_table(file, text_column, vector_column)
    else:
        raise UserError(f"{KEY}={path}: unknown ending {file.suffix!r}; known for vectors: .npy {' '.join(ENDINGS)}.")

    def place(i: int) -> str:
        return f"{where(i)} ({short(names[i])})"

    _check_numbers(table, place)
    return Vectors(_places(table, names, place), table)


Read = tuple[np.ndarray, list[str], Callable[[int], str]]
"""(N, D), N texts, position → such as `line 3 of teacher.path=…`."""


def _of_npy(file: Path, texts: str | None, text_column: str | int) -> Read:
    origin = f"{KEY}={file}"
    try:
        table = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{origin} is no array of numbers: {error}. Save it with numpy.save, as float32.") from error
    if table.ndim != 2 or table.dtype.kind not in "fi" or not table.size:
        raise UserError(
            f"{origin} holds {table.dtype}{list(table.shape)}, and vectors of texts are numbers of shape [texts, dimensions]."
        )
    lines, unit = numbered_texts(_texts_of(file, texts), text_column, "teacher.texts", "teacher.text_column")
    if len(lines) != len(table):
        raise UserError(
            f"{origin} holds {len(table)} vectors, and its texts in {_texts_of(file, texts)} are {len(lines)}. Row i must be the "
            "vector of text i: write both again from one list, or set teacher.texts."
        )
    return table, [text for _, text in lines], lambda i: f"row {i + 1} of {origin}, {unit} {lines[i][0]} of its texts"


def _texts_of(file: Path, texts: str | None) -> Path:
    if texts is not None:
        return existing(texts, "teacher.texts")
    beside = [file.with_suffix(ending) for ending in BESIDE]
    there = next((each for each in beside if each.is_file()), None)
    if there is None:
        raise UserError(
            f"{KEY}={file} holds vectors without their texts, and there is no {beside[0].name} or {file.stem}.jsonl beside it. "
            "Put the texts there in the order of the vectors, or name their file: teacher.texts."
        )
    return there


def _of_table(file: Path, text_column: str | int, vector_column: str | int) -> Read:
    origin = f"{KEY}={file}"
    table = read_table(file, KEY)
    if not table.names:
        raise UserError(f"{origin} has no rows.")
    texts = table.named(text_column, "teacher.text_column", origin)
    vectors = table.named(vector_column, "teacher.vector_column", origin)

    def where(i: int) -> str:
        return f"{table.unit} {table.numbers[i]} of {origin}"

    names = [text_of(cell, where(i), "teacher.text_column") for i, cell in enumerate(table.column(texts))]
    matrix = table.matrix(vectors)
    return (matrix if matrix is not None else _stacked(table.column(vectors), where)), names, where


def _stacked(cells: list[Any], where: Callable[[int], str]) -> np.ndarray:
    """Lists of numbers as (N, D) float32."""
    return np.stack([*_rows(cells, where)])


def _rows(cells: list[Any], where: Callable[[int], str]) -> Iterator[np.ndarray]:
    width = 0
    for i, cell in enumerate(cells):
        try:
            plain = isinstance(cell, list) and all(type(number) is float for number in cell)
            numbers = cell if plain else numbers_of(cell)
        except CellError as error:
            raise UserError(f"{where(i)} {error}, not a list of numbers. Set teacher.vector_column.") from error
        width = width or len(numbers)
        if len(numbers) != width or not width:
            raise UserError(
                f"{where(i)} has a vector of {len(numbers)} dimensions, and the vectors before it have {width}. One model gives "
                "vectors of one width: embed the texts again."
            )
        with np.errstate(over="ignore"):  # what does not fit is infinite, and refused
            yield np.array(numbers, np.float32)


def _check_numbers(table: np.ndarray, place: Callable[[int], str]) -> None:
    for start in range(0, len(table), _ROWS):
        with np.errstate(over="ignore"):
            part = np.asarray(table[start : start + _ROWS], np.float32)
        finite, empty = np.isfinite(part), ~part.any(1)
        if (bad := np.flatnonzero(~finite.all(1))).size:
            i = int(bad[0])
            dimension = int(np.flatnonzero(~finite[i])[0])
            raise UserError(
                f"{place(start + i)} has the number {part[i, dimension]} in dimension {dimension + 1} of its vector, which is "
                "not finite. Embed the text again, or remove the row."
            )
        if empty.any():
            raise UserError(
                f"{place(start + int(empty.argmax()))} has a vector of zeros, which has no direction. Embed the text again, or "
                "remove the row."
            )


def _places(table: np.ndarray, names: list[str], place: Callable[[int], str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for i, name in enumerate(names):
        first = places.setdefault(identity(name), i)
        if first != i and (cosine := _cosine(table[first], table[i])) < _ALIKE:
            raise UserError(
                f"{place(i)} has another vector than the same text before, {place(first)}: their cosine is {cosine:.3f}. Remove "
                "one of them."
            )
    return places


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    x, y = (np.asarray(vector, np.float64) for vector in (one, other))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
