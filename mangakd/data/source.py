"""`Source`: the columns that a task needs, in three splits, each cell checked once.

A source reads; the checks of cells, the splitting and the limits are the same for all and live here. What a task asks of its
rows beside that, such as two classes or more, is checked by `Task.prepare`.
"""

import hashlib
import json
import logging
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from mangakd.core.errors import UserError
from mangakd.data import checks
from mangakd.data.columns import Column
from mangakd.data.rows import (
    CLASSES,
    NOTHING,
    ColumnKind,
    Columns,
    Rows,
    identities,
    inputs,
    names_of,
    strata,
    whole_texts,
    written,
)
from mangakd.data.split import split_off, warn_of_copies
from mangakd.data.tables import Table, read_texts

log = logging.getLogger(__name__)
SPLITS = {"train": "train", "validation": "val", "test": "test"}
READ_BY_SOME = ("path", "val_path", "test_path", "text_column", "label_column", "columns")
KEYS = {"text": "text_column", "label": "label_column"}  # columns with a key of their own; the others are in `columns`
PYTHON: dict[ColumnKind, type] = {
    "text": str, "texts": tuple, "label": tuple, "labels": tuple, "number": float, "numbers": tuple,
    "answer": str, "answers": tuple, "passages": tuple, "messages": tuple, "turns": tuple, "name": str, "group": str,
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Three checked splits, and rows with the inputs alone, for the teacher.

    labels: names in the order of the model's head, where the source or the task gives one.
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    unlabelled: Rows
    labels: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Rows]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def digest(self, *splits: str) -> str:
        """Content digest of the named splits (all columns, label order)."""
        content = [self.labels, *([*self.splits[name].columns.values()] for name in splits)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass
class Source(ABC):
    """What conf/data holds. Limits are rows; a limited split is a random subset fixed by `split_seed`.

    text_column, label_column: of the columns `text` and `label` of a task. columns: of its other columns, each by its own name
    where it is left out.
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
    columns: Mapping[str, str | int] = field(default_factory=dict)
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
    # Of the task, set by load(): the columns to read, and those of them that a file may lack.
    needs: Columns = field(default_factory=lambda: CLASSES, init=False, repr=False)
    optional: Collection[str] = field(default=(), init=False, repr=False)

    @abstractmethod
    def read(self) -> dict[str, Rows]:
        """`train` and, where they exist, `validation` and `test`, each with the columns that the task needs."""

    def load(self, needs: Columns = CLASSES, optional: Collection[str] = ()) -> Corpus:
        """Read, split, limit, check. needs: the columns of the task. Raises UserError for every mistake in their cells.

        optional: columns that a file may lack, and cells of which may be empty; rows then hold NOTHING there.
        """
        self.needs, self.optional = needs, optional
        self._check_columns()
        self._check_limits()
        self._warn_ignored()
        files = self.read()
        self._check_named(files)
        parts = {name: self._whole(self._select(rows)) for name, rows in files.items()}
        for name, rows in parts.items():
            checks.check_rows(name, rows, needs, self.column, optional)
        if stratum := strata(needs):  # before the split, which would find too few rows of other classes
            checks.check_classes(names_of(parts["train"], stratum), parts["train"], stratum)
        warn_of_copies(parts, needs)
        missing = [name for name in ("validation", "test") if name not in parts]
        if missing:
            parts |= split_off(parts["train"], missing, self.split_seed, needs)
        parts = {name: self._limited(name, rows) for name, rows in parts.items()}
        parts["train"], hidden = self._labelled(parts["train"])
        splits = (parts["train"], parts["validation"], parts["test"])
        return Corpus(type(self).__name__, *splits, self._unlabelled(hidden, splits), self.ordered_labels or ())

    def column(self, name: str) -> Column:
        """Where a column of the task is in the file, and the key that says so."""
        if name in KEYS:
            return Column(self.needs[name], getattr(self, KEYS[name]), f"data.{KEYS[name]}")
        return Column(self.needs[name], self.columns.get(name, name), f"data.columns.{name}")

    def in_table(self, table: Table) -> dict[str, Column]:
        """The columns to read of a file: all but optional ones that it lacks. One input at least, so that its lack is told."""
        columns = {name: self.column(name) for name in self.needs}
        present = {name: each for name, each in columns.items() if name not in self.optional or table.has(each.name)}
        renamed = [name for name in inputs(self.needs) if self.columns.get(name, name) != name]
        lead = [*renamed, *inputs(self.needs)][0]
        return present if any(name in present for name in inputs(self.needs)) else {lead: columns[lead], **present}

    def _check_columns(self) -> None:
        others = [name for name in self.needs if name not in KEYS]
        if not isinstance(self.columns, Mapping):
            raise UserError(
                f"data.columns={self.columns} must map columns of the task to columns of the file, or be {{}}."
            )
        for name in self.columns:
            if name not in others:
                cure = f" Set data.{KEYS[name]}." if name in KEYS else ""
                hint = f"the task's are {', '.join(others)}" if others else "this task has none"
                raise UserError(f"data.columns.{name} names no column of the task: {hint}.{cure}")

    def _check_named(self, files: Mapping[str, Rows]) -> None:
        """Raises UserError for an optional column under a name that no file has: left out, it would be missed too late."""
        for name in self.optional:
            column = self.columns.get(name, name)
            if column != name and not any(name in rows for rows in files.values()):
                raise UserError(
                    f"data.columns.{name}={column} names a column that no file has. Correct the name, or leave it out."
                )

    def _select(self, rows: Rows) -> Rows:
        """The columns of the task. Raises UserError where a source with columns of its own lacks one."""
        empty = {name: [NOTHING[self.needs[name]]] * len(rows) for name in self.optional if name not in rows}
        rows = replace(rows, columns={**rows.columns, **empty})
        for name, kind in self.needs.items():
            if name not in rows or (len(rows) and not isinstance(rows[name][0], PYTHON[kind])):
                raise UserError(
                    f"{rows.origin} has no column {name!r} of kind {kind}, which the task reads; it has "
                    f"{', '.join(rows.columns)}. Read your own files: data=files."
                )
        return rows.only(self.needs)

    def _whole(self, rows: Rows) -> Rows:
        texts = {name: whole_texts(rows[name], rows.numbers, rows.origin, rows.unit) for name in written(self.needs)}
        return replace(rows, columns={**rows.columns, **texts})

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
            changed = value != option.default
            if option.name == "columns":  # a task's yaml may name each of them by itself
                changed = any(name != column for name, column in value.items())
            if option.name in READ_BY_SOME and option.name not in self.reads and changed:
                log.warning(
                    "data.%s=%s is ignored: the data source %s does not read it (data=files reads your own files).",
                    option.name, value, type(self).__name__,
                )  # fmt: skip

    def _labelled(self, rows: Rows) -> tuple[Rows, Rows]:
        """(the rows that keep their labels, the inputs of the others)."""
        unlabelled = rows.only(inputs(self.needs))
        if self.labelled_share == 1:
            return rows, unlabelled.take([])
        stratum = strata(self.needs)
        classes: dict[tuple[str, ...], list[int]] = {}
        for i, labels in enumerate(rows[stratum] if stratum else [()] * len(rows)):
            classes.setdefault(labels, []).append(i)
        rng = random.Random(self.split_seed)
        labelled = {
            i for each in classes.values() for i in rng.sample(each, math.ceil(self.labelled_share * len(each)))
        }
        return rows.take(sorted(labelled)), unlabelled.take([i for i in range(len(rows)) if i not in labelled])

    def _unlabelled(self, hidden: Rows, splits: Sequence[Rows]) -> Rows:
        """Each input once, none that is in a split."""
        more = self.more_texts()
        if more and [name for name in inputs(self.needs) if name == "text" or name not in self.optional] != ["text"]:
            raise UserError(
                f"texts without labels are of no use to this task, which reads {', '.join(inputs(self.needs))}: "
                "set data.unlabelled_path=null."
            )
        new_cells = {
            name: more if name == "text" else [NOTHING[self.needs[name]]] * len(more) for name in hidden.columns
        }
        rows = Rows({name: [*values, *new_cells[name]] for name, values in hidden.columns.items()})
        all_keys = {key for split in splits for key in identities(split, self.needs)}
        new = []
        for i, key in enumerate(identities(rows, self.needs)):
            if key not in all_keys:
                all_keys.add(key)
                new.append(i)
        return rows.take(new)

    def more_texts(self) -> list[str]:
        """Texts without labels, besides those that `labelled_share` makes."""
        keys = ("data.unlabelled_path", "data.text_column")
        return read_texts(self.unlabelled_path, self.text_column, *keys) if self.unlabelled_path else []

    def _limited(self, name: str, rows: Rows) -> Rows:
        limit = getattr(self, f"{SPLITS[name]}_limit")
        if limit is None or limit >= len(rows):
            return rows
        return rows.take(sorted(random.Random(self.split_seed).sample(range(len(rows)), limit)))
