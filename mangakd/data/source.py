"""`Source`: texts and labels in three splits, checked once for everything that can be wrong with them.

A source reads; the checks, the splitting and the limits are the same for all and live here.
"""

import hashlib
import json
import logging
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

from mangakd.core.errors import UserError, near
from mangakd.data.tables import read_texts

log = logging.getLogger(__name__)
LABEL_SEPARATOR = "|"
SPLITS = {"train": "train", "validation": "val", "test": "test"}
READ_BY_SOME = ("path", "val_path", "test_path", "text_column", "label_column")


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
    """Three checked splits, the label names in the order of the model's head, and texts without labels, for the teacher."""

    name: str
    train: Rows
    validation: Rows
    test: Rows
    labels: tuple[str, ...]
    unlabelled: Sequence[str] = ()

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

    labelled_share: of each class's training rows, at least one; the others lose their labels and become unlabelled texts.
    unlabelled_path: a file with more of them (a text column, or one text a line in .txt).

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
    labelled_share: float = 1.0
    unlabelled_path: str | None = None

    # Which of READ_BY_SOME this source reads; set to another value, the rest is warned about.
    reads: tuple[str, ...] = field(default=(), init=False, repr=False)
    ordered_labels: tuple[str, ...] | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def read(self) -> dict[str, Rows]:
        """`train` and, where they exist, `validation` and `test`."""

    def load(self) -> Corpus:
        """Read, split, limit, check. Raises UserError for every mistake a user can make in data."""
        self._check_limits()
        self._warn_ignored()
        parts = self.read()
        for name, rows in parts.items():
            _check_rows(name, rows)
        parts = {name: self._limited(name, rows) for name, rows in self._split(parts).items()}
        parts["train"], hidden = self._labelled(parts["train"])
        labels = self.ordered_labels or tuple(sorted({label for row in parts["train"].labels for label in row}))
        for name in ("validation", "test"):
            _check_labels(name, parts[name], set(labels))
        _check_present(labels, parts["train"], self.train_limit)
        unlabelled = self._unlabelled(hidden, [text for rows in parts.values() for text in rows.texts])
        return Corpus(type(self).__name__, parts["train"], parts["validation"], parts["test"], labels, unlabelled)

    def _check_limits(self) -> None:
        share = self.labelled_share
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise UserError(f"data.labelled_share={share} must be in (0, 1].")
        for name in SPLITS.values():
            limit = getattr(self, f"{name}_limit")
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
                raise UserError(f"data.{name}_limit={limit} must be a whole number from 1 on, or null for all rows.")

    def _warn_ignored(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in READ_BY_SOME and option.name not in self.reads and value != option.default:
                log.warning(
                    "data.%s=%s is ignored: the data source %s does not read it (data=files reads your own files).",
                    option.name, value, type(self).__name__,
                )  # fmt: skip

    def _split(self, parts: dict[str, Rows]) -> dict[str, Rows]:
        missing = [name for name in ("validation", "test") if name not in parts]
        if missing:
            order = list(range(len(parts["train"])))
            random.Random(self.split_seed).shuffle(order)
            size = max(len(order) // 10, 1)
            if len(order) <= size * len(missing):
                keys = " and ".join(f"data.{SPLITS[name]}_path" for name in missing)
                raise UserError(
                    f"{parts['train'].origin} has {len(order)} rows, too few to split {' and '.join(missing)} off. "
                    f"Add rows, or set {keys}."
                )
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

    def _labelled(self, rows: Rows) -> tuple[Rows, list[str]]:
        """(the rows that keep their labels, the texts of the others)."""
        if self.labelled_share == 1:
            return rows, []
        classes: dict[tuple[str, ...], list[int]] = {}
        for i, labels in enumerate(rows.labels):
            classes.setdefault(labels, []).append(i)
        rng = random.Random(self.split_seed)
        kept = {i for each in classes.values() for i in rng.sample(each, math.ceil(self.labelled_share * len(each)))}
        return rows.take(sorted(kept)), [text for i, text in enumerate(rows.texts) if i not in kept]

    def _unlabelled(self, hidden: list[str], known: Sequence[str]) -> list[str]:
        """Each text once, none that is in a split."""
        seen = set(known)
        return [text for text in dict.fromkeys([*hidden, *self.more_texts()]) if text not in seen]

    def more_texts(self) -> list[str]:
        """Texts without labels, besides those that `labelled_share` makes."""
        keys = ("data.unlabelled_path", "data.text_column")
        return read_texts(self.unlabelled_path, self.text_column, *keys) if self.unlabelled_path else []

    def _limited(self, name: str, rows: Rows) -> Rows:
        limit = getattr(self, f"{SPLITS[name]}_limit")
        if limit is None or limit >= len(rows):
            return rows
        return rows.take(sorted(random.Random(self.split_seed).sample(range(len(rows)), limit)))


def names(cell: object) -> tuple[str, ...]:
    """Label names of one cell: a value, a list of values, or `a|b`. None and NaN are no label."""
    values = cell if isinstance(cell, list | tuple) else str(cell).split(LABEL_SEPARATOR) if _is_set(cell) else ()
    found = (str(value).strip() for value in values if _is_set(value))
    return tuple(dict.fromkeys(name for name in found if name))


def _is_set(value: object) -> bool:
    return value is not None and value == value  # NaN, which stands for nothing in a column of numbers, is not itself


def _check_rows(name: str, rows: Rows) -> None:
    if not len(rows):
        raise UserError(f"{rows.origin or name} has no rows. Give data.{_key(name)} a file with rows.")
    blank = [i for i, text in enumerate(rows.texts) if not text or not text.strip()]
    if blank:
        raise UserError(
            f"{_row(name, rows, blank[0])} has no text{_more(blank)} Fill or remove it, or set data.text_column."
        )
    unlabelled = [i for i, labels in enumerate(rows.labels) if not labels]
    if unlabelled:
        raise UserError(
            f"{_row(name, rows, unlabelled[0])} has no label{_more(unlabelled)} Fill or remove it, or set data.label_column."
        )


def _check_labels(name: str, rows: Rows, known: set[str]) -> None:
    wrong = [i for i, labels in enumerate(rows.labels) if not set(labels) <= known]
    if wrong:
        unknown = sorted({label for i in wrong for label in rows.labels[i]} - known)
        first = next(label for label in rows.labels[wrong[0]] if label not in known)
        every = {*known, *unknown}
        raise UserError(
            f"{_row(name, rows, wrong[0])} has the label {first!r}, which no row of train has{_more(wrong, near(first, known))} "
            f"train has {len(known)} classes, all splits together {len(every)}; missing from train: {listed(unknown)}. "
            "Correct the label, add rows to train, or raise data.train_limit."
        )


def _check_present(labels: tuple[str, ...], train: Rows, limit: int | None) -> None:
    seen = {label for row in train.labels for label in row}
    absent = [label for label in labels if label not in seen]
    if absent:
        fix = f"raise data.train_limit={limit}" if limit is not None else "add rows"
        raise UserError(f"train has {len(train)} rows, none of them of {listed(absent)}; {fix}.")
    if len(labels) < 2:
        raise UserError(
            f"train has a single class ({labels[0]}); a classifier needs two or more. Set data.label_column, or add rows."
        )


def listed(labels: Iterable[str]) -> str:
    """The first five of some names, and how many more there are."""
    ordered = sorted(labels)
    return (", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")) or "none"


def _key(name: str) -> str:
    return "path" if name == "train" else f"{SPLITS[name]}_path"


def _row(name: str, rows: Rows, i: int) -> str:
    header = ", header not counted" if rows.origin.lower().endswith((".csv", ".tsv")) else ""
    return f"row {rows.numbers[i] if rows.numbers else i + 1} of {name} ({rows.origin}{header})"


def _more(found: Iterable[int], end: str = ".") -> str:
    count = len(list(found)) - 1
    return (f" (and {count} more such row{'s' if count > 1 else ''})" if count else "") + end
