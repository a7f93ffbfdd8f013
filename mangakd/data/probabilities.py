"""Probabilities of labels in files that others wrote, such as the soft labels of a language model behind an API.

A table has a text in each row, and its probabilities: an object of name → probability, a list of numbers in the order of names
that are set beside the file, or the name of a label, which has the probability 1. Rows of one text are averaged, so that drawn
labels of a teacher without log-probabilities become their shares. N texts, C labels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.cells import CellError, number_of, numbers_of
from mangakd.data.json_text import parse
from mangakd.data.notices import short
from mangakd.data.rows import identity
from mangakd.data.tables import existing, read_table, text_of

KEY = "teacher.path"
NEAR = 0.02  # what a row's sum may differ from 1: numbers of two decimals


@dataclass(frozen=True)
class Probabilities:
    """names: of the C columns. places: a text (`identity`) → its row. table: (N, C) float64, rows with the sum 1."""

    names: tuple[str, ...]
    places: dict[str, int]
    table: np.ndarray


def read_probabilities(
    path: str, names: Sequence[str] | None, text_column: str | int, column: str | int
) -> Probabilities:
    """names: of the numbers in a list.

    Raises UserError for cells that are neither, numbers that are no probabilities, sums that are not 1, and lists without names.
    """
    origin = f"{KEY}={path}"
    table = read_table(existing(path, KEY), KEY)
    if not table.names:
        raise UserError(f"{origin} has no rows.")
    text_name = table.named(text_column, "teacher.text_column", origin)
    cell_name = table.named(column, "teacher.column", origin)

    def where(i: int) -> str:
        return f"{table.unit} {table.numbers[i]} of {origin}"

    texts = [text_of(cell, where(i), "teacher.text_column") for i, cell in enumerate(table.column(text_name))]
    cells = [_object(cell) for cell in table.column(cell_name)]
    if names is None:
        names = [*dict.fromkeys(name for cell in cells if isinstance(cell, dict) for name in cell)]
    rows = np.stack([_row(cell, names, lambda i=i: where(i)) for i, cell in enumerate(cells)])  # type: ignore[misc]
    return Probabilities(tuple(names), *_averaged(texts, rows))


def _object(cell: Any) -> Any:
    """A cell of CSV is JSON; a text that is none is the name of a label."""
    if not isinstance(cell, str) or not cell.strip():
        return cell
    try:
        return parse(cell) if cell.strip()[0] in "{[" else {cell.strip(): 1.0}
    except ValueError:
        return cell


def _row(cell: Any, names: Sequence[str], where: Callable[[], str]) -> np.ndarray:
    """(C) probabilities with the sum 1."""
    try:
        if isinstance(cell, dict):
            numbers = {name: number_of(value) for name, value in cell.items()}
            if unknown := next((name for name in numbers if name not in names), None):
                raise UserError(f"{where()} has a probability for {unknown!r}, which teacher.labels does not name.")
            row = np.array([numbers.get(name, 0.0) for name in names])
        else:
            row = np.array(numbers_of(cell))
    except CellError as error:
        raise UserError(
            f"{where()} {error}, no probabilities: an object of label and number, or a list of numbers. Set teacher.column."
        ) from error
    if len(row) != len(names) or not len(row):
        known = f"teacher.labels has {len(names)} names" if names else "no names are known: set teacher.labels=[…]"
        raise UserError(f"{where()} has {len(row)} probabilities, and {known}.")
    if not (row >= 0).all():  # NaN is not
        raise UserError(f"{where()} has the probabilities {short(cell)}; each must be a number from 0 to 1.")
    if abs(total := math.fsum(row) - 1.0) > NEAR:
        raise UserError(
            f"{where()} has probabilities with the sum {total + 1:.4f}, which must be 1. Divide them by their sum."
        )
    return row / row.sum()


def _averaged(texts: Sequence[str], rows: np.ndarray) -> tuple[dict[str, int], np.ndarray]:
    """Each text once, with the mean of its rows."""
    places: dict[str, int] = {}
    owners = np.array([places.setdefault(identity(text), len(places)) for text in texts])
    sums = np.zeros((len(places), rows.shape[1]))
    np.add.at(sums, owners, rows)
    return places, sums / np.bincount(owners)[:, None]
