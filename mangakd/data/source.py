"""`Source`: texts and labels in three splits, checked once for everything that can be wrong with them.

A source reads; the checks, the splitting and the limits are the same for all and live here.
"""

import hashlib
import json
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mangakd.core.errors import UserError, near

log = logging.getLogger(__name__)
LABEL_SEPARATOR = "|"
SPLITS = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Rows:
    """One split. labels: a tuple of names for each text (one name, or several for multi-label tasks).

    numbers: the row's position in its file, from 1, for messages.
    """

    texts: list[str]
    labels: list[tuple[str, ...]]
    numbers: list[int] = field(default_factory=list)
    origin: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Sequence[int]) -> "Rows":
        numbers = [self.numbers[i] for i in positions] if self.numbers else []
        return Rows([self.texts[i] for i in positions], [self.labels[i] for i in positions], numbers, self.origin)


@dataclass(frozen=True)
class Corpus:
    """Three checked splits and the label names, in the order of the model's head."""

    name: str
    train: Rows
    validation: Rows
    test: Rows
    labels: tuple[str, ...]

    @property
    def splits(self) -> dict[str, Rows]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def digest(self, *splits: str) -> str:
        """Content digest of the named splits (texts, labels, label order)."""
        content = [self.labels, *((self.splits[name].texts, self.splits[name].labels) for name in splits)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass
class Source(ABC):
    """What conf/data holds. Limits are rows; a limited split is a random subset fixed by `split_seed`.

    Missing val or test files are split off the training rows (10 % each), also by `split_seed`, not by the run's seed, so
    that runs with different seeds are scored on the same rows.
    """

    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    train_limit: int | None = None
    val_limit: int | None = None
    test_limit: int | None = None
    max_length: int = 64
    split_seed: int = 0

    reads: tuple[str, ...] = field(default=(), init=False, repr=False)
    ordered_labels: tuple[str, ...] | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def read(self) -> dict[str, Rows]:
        """`train` and, where they exist, `validation` and `test`."""

    def load(self) -> Corpus:
        """Read, split, limit, check. Raises UserError for every mistake a user can make in data."""
        self._warn_ignored()
        parts = self._split(self.read())
        for name, rows in parts.items():
            _check_rows(name, rows)
        parts = {name: self._limited(name, rows) for name, rows in parts.items()}
        labels = self.ordered_labels or tuple(sorted({label for row in parts["train"].labels for label in row}))
        for name in ("validation", "test"):
            _check_labels(name, parts[name], set(labels))
        _check_present(labels, parts["train"], self.train_limit)
        return Corpus(type(self).__name__, parts["train"], parts["validation"], parts["test"], labels)

    def _warn_ignored(self) -> None:
        for key in ("path", "val_path", "test_path"):
            if getattr(self, key) is not None and key not in self.reads:
                log.warning(
                    "data.%s=%s is ignored: data=%s does not read it.", key, getattr(self, key), type(self).__name__
                )

    def _split(self, parts: dict[str, Rows]) -> dict[str, Rows]:
        missing = [name for name in ("validation", "test") if name not in parts]
        if missing:
            order = list(range(len(parts["train"])))
            random.Random(self.split_seed).shuffle(order)
            size = max(len(order) // 10, 1)
            for name in missing:
                held, order = order[:size], order[size:]
                parts[name] = parts["train"].take(sorted(held))
            parts["train"] = parts["train"].take(sorted(order))
            log.info(
                "no file for %s: split off the training rows (data.split_seed=%d).",
                " and ".join(missing),
                self.split_seed,
            )
        return parts

    def _limited(self, name: str, rows: Rows) -> Rows:
        limit = getattr(self, f"{SPLITS[name]}_limit")
        if limit is None or limit >= len(rows):
            return rows
        if limit < 1:
            raise UserError(f"data.{SPLITS[name]}_limit={limit} must be at least 1, or null for all rows.")
        return rows.take(sorted(random.Random(self.split_seed).sample(range(len(rows)), limit)))


def existing(path: str | None, key: str) -> Path:
    """The file behind a key; UserError when it is not set, not there or empty."""
    if path is None:
        raise UserError(f"{key} is not set: give the file, for example {key}=data/train.csv.")
    file = Path(path).expanduser()
    if not file.is_file():
        others = sorted(p.name for p in file.parent.iterdir() if p.is_file()) if file.parent.is_dir() else []
        hint = (
            near(file.name, others)
            if others
            else f"; the folder {file.parent} does not exist"
            if not file.parent.is_dir()
            else ""
        )
        raise UserError(f"{key}={path}: there is no such file{hint}")
    if file.stat().st_size == 0:
        raise UserError(f"{key}={path} is empty (0 bytes).")
    return file


def names(cell: object) -> tuple[str, ...]:
    """Label names of one cell: a value, a list of values, or `a|b`."""
    if isinstance(cell, list | tuple):
        return tuple(str(value) for value in cell)
    return tuple(part for part in str(cell).split(LABEL_SEPARATOR) if part) if cell is not None else ()


def _check_rows(name: str, rows: Rows) -> None:
    if not len(rows):
        raise UserError(f"the {name} split ({rows.origin}) has no rows; check data.{SPLITS[name]}_path or data.path.")
    blank = [i for i, text in enumerate(rows.texts) if not text or not text.strip()]
    if blank:
        raise UserError(
            f"{_row(rows, blank[0])} of {name} ({rows.origin}) has no text{_more(blank)}. Fill or remove it."
        )
    unlabelled = [i for i, labels in enumerate(rows.labels) if not labels]
    if unlabelled:
        raise UserError(f"{_row(rows, unlabelled[0])} of {name} ({rows.origin}) has no label{_more(unlabelled)}.")


def _check_labels(name: str, rows: Rows, known: set[str]) -> None:
    wrong = [i for i, labels in enumerate(rows.labels) if not set(labels) <= known]
    if wrong:
        unknown = sorted({label for i in wrong for label in rows.labels[i]} - known)
        raise UserError(
            f"{_row(rows, wrong[0])} of {name} ({rows.origin}) has the label {unknown[0]!r}, which the {len(known)} classes of "
            f"train do not hold{near(unknown[0], known)}{_more(wrong)} {len(unknown)} classes are missing from train: "
            "correct the label, or raise data.train_limit."
        )


def _check_present(labels: tuple[str, ...], train: Rows, limit: int | None) -> None:
    seen = {label for row in train.labels for label in row}
    absent = [label for label in labels if label not in seen]
    if absent:
        raise UserError(f"train has no row of {', '.join(absent)}; raise data.train_limit={limit} or add rows.")
    if len(labels) < 2:
        raise UserError(
            f"train has a single class ({labels[0]}); a classifier needs two or more. Check data.label_column."
        )


def _row(rows: Rows, i: int) -> str:
    return f"row {rows.numbers[i] if rows.numbers else i + 1}"


def _more(found: Iterable[int]) -> str:
    count = len(list(found)) - 1
    return f" (and {count} more such rows)." if count else "."
