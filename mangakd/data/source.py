"""`Source`: texts and labels in three splits, checked once for everything that can be wrong with them.

A source reads; the checks, the splitting and the limits are the same for all and live here.
"""

import hashlib
import json
import logging
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from mangakd.core.errors import UserError
from mangakd.core.spec import Problem
from mangakd.data import checks
from mangakd.data.rows import Rows, identity, whole_texts
from mangakd.data.split import split_off, warn_of_copies
from mangakd.data.tables import read_texts

log = logging.getLogger(__name__)
SPLITS = {"train": "train", "validation": "val", "test": "test"}
READ_BY_SOME = ("path", "val_path", "test_path", "text_column", "label_column")


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
    that runs with different seeds are scored on the same rows. Equal texts stay on one side, a class's last row in train.
    """

    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    text_column: str | int = "text"
    label_column: str | int = "label"
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
    # Of the task, set by load(): how label cells are read.
    problem: Problem = field(default="single_label", init=False, repr=False)

    @abstractmethod
    def read(self) -> dict[str, Rows]:
        """`train` and, where they exist, `validation` and `test`."""

    def load(self, problem: Problem = "single_label") -> Corpus:
        """Read, split, limit, check. problem: of the task; a row of a multi-label task may have no label at all.

        Raises UserError for every mistake a user can make in data.
        """
        self.problem = problem
        self._check_limits()
        self._warn_ignored()
        parts = {name: _whole(rows) for name, rows in self.read().items()}
        for name, rows in parts.items():
            checks.check_rows(name, rows, problem)
        checks.check_classes(self._labels(parts["train"]), parts["train"], None)
        warn_of_copies(parts)
        missing = [name for name in ("validation", "test") if name not in parts]
        if missing:
            parts |= split_off(parts["train"], missing, self.split_seed)
        parts = {name: self._limited(name, rows) for name, rows in parts.items()}
        parts["train"], hidden = self._labelled(parts["train"])
        labels = self._labels(parts["train"])
        checks.warn_of_alike(labels)
        for name in ("validation", "test"):
            checks.check_labels(name, parts[name], set(labels))
        checks.check_classes(labels, parts["train"], self.train_limit)
        unlabelled = self._unlabelled(hidden, [text for rows in parts.values() for text in rows.texts])
        return Corpus(type(self).__name__, parts["train"], parts["validation"], parts["test"], labels, unlabelled)

    def _labels(self, train: Rows) -> tuple[str, ...]:
        return self.ordered_labels or tuple(sorted({label for names in train.labels for label in names}))

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
        seen, texts = set(map(identity, known)), []
        for text in (*hidden, *self.more_texts()):
            if (key := identity(text)) not in seen:
                seen.add(key)
                texts.append(text)
        return texts

    def more_texts(self) -> list[str]:
        """Texts without labels, besides those that `labelled_share` makes."""
        keys = ("data.unlabelled_path", "data.text_column")
        return read_texts(self.unlabelled_path, self.text_column, *keys) if self.unlabelled_path else []

    def _limited(self, name: str, rows: Rows) -> Rows:
        limit = getattr(self, f"{SPLITS[name]}_limit")
        if limit is None or limit >= len(rows):
            return rows
        return rows.take(sorted(random.Random(self.split_seed).sample(range(len(rows)), limit)))


def _whole(rows: Rows) -> Rows:
    return replace(rows, texts=whole_texts(rows.texts, rows.numbers, rows.origin, rows.unit))
