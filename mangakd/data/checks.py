"""Refuses rows that cannot be trained on, with the row's place in its file and the key that helps."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from mangakd.core.errors import UserError, near
from mangakd.data.columns import Column
from mangakd.data.notices import short
from mangakd.data.rows import ColumnKind, Columns, Rows, identity
from mangakd.data.split import KEYS
from mangakd.runtime.tokenise import whole

log = logging.getLogger(__name__)


def check_rows(
    name: str, rows: Rows, columns: Columns, column: Callable[[str], Column], optional: Collection[str] = ()
) -> None:
    """No cell is missing, but for a `labels` column, where a row may have none, and for optional columns.

    A list of numbers may lack some: whether that is a mistake, the task says.

    column: name → what the user set.
    """
    if not len(rows):
        raise UserError(f"{rows.origin or name} has no rows. Give {KEYS[name]} a file with rows.")
    for each, kind in columns.items():
        missing = [i for i, value in enumerate(rows[each]) if MISSING[kind](value)]
        if each in optional:  # a list may be missing, but no item of it
            missing = [i for i in missing if kind in LISTS and rows[each][i]]
        if missing and kind == "labels":
            log.info("%s: %d of %d rows have none of the labels.", rows.origin, len(missing), len(rows))
        elif missing:
            raise UserError(
                f"{rows.where(missing[0])} has no {_lack(rows[each][missing[0]], each, kind)}{_more(missing)} "
                f"Fill or remove it, or set {column(each).key}."
            )
        if kind in ("label", "labels"):
            _check_whole(rows, each)
        if kind == "texts":
            _warn_of_repeats(rows, each)


def _blank(text: str) -> bool:
    return not text or not text.strip()


MISSING: dict[ColumnKind, Callable[[Any], bool]] = {
    "text": _blank,
    "texts": lambda texts: not texts or any(map(_blank, texts)),
    "label": lambda names: not names,
    "labels": lambda names: not names,
    "number": math.isnan,
    "numbers": lambda numbers: not numbers,
    "answer": _blank,
    "passages": lambda texts: not texts or any(map(_blank, texts)),
    "messages": lambda messages: not messages,
    "answers": lambda texts: not texts or any(map(_blank, texts)),
    "turns": lambda turns: not turns,
    "name": _blank,
    "group": _blank,
}


LISTS = ("texts", "passages", "answers")


def _lack(value: Any, column: str, kind: ColumnKind) -> str:
    """What is missing in a cell: its column, or a place in its list, from 1."""
    if kind not in LISTS or not value:
        return column
    return f"text at place {1 + next(i for i, each in enumerate(value) if _blank(each))} of its {column}"


def _warn_of_repeats(rows: Rows, column: str) -> None:
    """Two equal texts in a row get equal scores from every model, so that no order of them is right."""
    repeats = [
        (i, text)
        for i, texts in enumerate(rows[column])
        for text, count in Counter(map(identity, texts)).items()
        if count > 1
    ]
    if repeats:
        log.warning(
            "%s: texts that are more than once in the %s of a row: %d; first: %s, %s",
            rows.origin, column, len(repeats), rows.place(repeats[0][0]), short(repeats[0][1]),
        )  # fmt: skip


def _check_whole(rows: Rows, column: str) -> None:
    torn = [i for i, labels in enumerate(rows[column]) if any(whole(label) != label for label in labels)]
    if torn:
        raise UserError(
            f"{rows.where(torn[0])} has a label with half a surrogate pair in it, {short(rows[column][torn[0]][0])}"
            f"{_more(torn)} Correct it."
        )


def check_labels(name: str, rows: Rows, column: str, vocabulary: set[str]) -> None:
    """The labels of a held-out split are those of train."""
    wrong = [i for i, labels in enumerate(rows[column]) if not set(labels) <= vocabulary]
    if wrong:
        unknown = sorted({label for i in wrong for label in rows[column][i]} - vocabulary)
        first = next(label for label in rows[column][wrong[0]] if label not in vocabulary)
        every = {*vocabulary, *unknown}
        raise UserError(
            f"{rows.where(wrong[0])} ({name}) has the label {first!r}, which no row of train has"
            f"{_more(wrong, near(first, vocabulary))} "
            f"train has {len(vocabulary)} classes, all splits together {len(every)}; missing from train: {listed(unknown)}. "
            "Correct the label, add rows to train, or raise data.train_limit."
        )


def check_classes(labels: tuple[str, ...], train: Rows, column: str) -> None:
    """train has rows of two classes or more, and of each."""
    present = {label for row in train[column] for label in row}
    absent = [label for label in labels if label not in present]
    if absent:
        raise UserError(
            f"train has {len(train)} rows, none of them of {listed(absent)}; add rows, or raise data.train_limit."
        )
    if len(labels) < 2:
        raise UserError(
            f"train has a single class ({listed(labels)}); a classifier needs two or more. Set data.label_column, or add rows."
        )


def warn_of_alike(labels: tuple[str, ...]) -> None:
    """Names that differ in the composition of their characters or in blanks alone."""
    names: dict[str, str] = {}
    for label in labels:
        other = names.setdefault(identity(label), label)
        if other != label:
            log.warning("the labels %s and %s look alike and are two classes", ascii(other), ascii(label))


def listed(labels: Iterable[str]) -> str:
    """The first five of some names, and how many more there are."""
    ordered = sorted(labels)
    return (", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")) or "none"


def _more(rows: Iterable[int], end: str = ".") -> str:
    count = len(list(rows)) - 1
    return (f" (and {count} more such row{'s' if count > 1 else ''})" if count else "") + end
