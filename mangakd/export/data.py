"""The texts that calibrate and judge an export: of a run, or of files with or without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mangakd.core.errors import UserError, near
from mangakd.data.cells import SEPARATOR, split_joined
from mangakd.data.columns import Column, table_rows
from mangakd.data.rows import ColumnKind, Rows, whole_texts
from mangakd.data.tables import Table, existing, read_table, read_texts
from mangakd.evaluation import predictions
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.served import Served
from mangakd.export.spread import spread
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.tokenise import Text
from mangakd.runtime.turns import Turns

MOST = 3000  # texts without labels for the comparison: more texts add time for every variant and no information


@dataclass(frozen=True)
class Split:
    """labels: of each text, names (classifiers), numbers (regression), or what is to be written; None without labels.

    teacher: (N, C) logits of the teacher, in the order of `columns`. joined: several labels of a text are one name, a|b.
    rows: the source of the texts, for messages. served: how the task judges, in place of labels.
    """

    texts: Sequence[Text]
    labels: Sequence[tuple[str, ...]] | None = None
    teacher: np.ndarray | None = None
    columns: tuple[str, ...] = ()
    origin: str = ""
    joined: bool = False
    rows: Rows | None = None
    served: Served | None = None

    @property
    def size(self) -> int:
        """N rows, each of which may own several texts."""
        return len(self.texts if self.served is None else next(iter(self.served.truth.values())))

    @property
    def labelled(self) -> bool:
        return self.labels is not None or (self.served is not None and self.served.labelled)

    def targets(self, manifest: Manifest) -> np.ndarray | None:
        """(N) class ids, (N, C) 0 and 1, (N) values or (N) texts, as the variant's head has them; None without labels.

        Raises UserError for an unknown label, for several labels if the student gives one, and for a value that is no number.
        """
        head = manifest.head
        if self.labels is None or head.kind == "vector":
            return None
        if head.kind == "tokens":
            return np.array([row[0].strip() for row in self.labels], dtype=object)
        if head.kind == "score":
            return np.array([self._number(i, row) for i, row in enumerate(self.labels)])
        place = {label: i for i, label in enumerate(head.names)}
        labels: Sequence[tuple[str, ...]] = self.labels
        if head.several and self.joined:
            labels = [split_joined(SEPARATOR.join(row)) for row in labels]
        for i, row in enumerate(labels):
            if unknown := [name for name in row if name not in place]:
                raise UserError(
                    f"{self._where(i)} has the label {unknown[0]!r}, which the student does not know"
                    f"{near(unknown[0], place)} Its labels are in id2label of its config.json."
                )
        if head.several:
            return np.array([[name in row for name in head.names] for row in labels], dtype=np.float32)
        if several := [i for i, row in enumerate(labels) if len(row) != 1]:
            names = ", ".join(labels[several[0]]) or "none"
            raise UserError(
                f"{self._where(several[0])} has not one label ({names}), but the student gives one. If it gives "
                "several, say so in its config.json: problem_type=multi_label_classification."
            )
        return np.array([place[row[0]] for row in labels], dtype=np.int64)

    def _where(self, i: int) -> str:
        return self.rows.where(i) if self.rows else f"row {i + 1} of {self.origin}"

    def _number(self, i: int, row: tuple[str, ...]) -> float:
        try:
            return float(row[0])
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{self._where(i)} has {', '.join(row) or 'nothing'} for a label; the student gives a number."
            ) from error

    def of_teacher(self, manifest: Manifest) -> np.ndarray | None:
        """(N, C) in the order of the student's labels."""
        if self.teacher is None or set(self.columns) != set(manifest.head.names):
            return None
        if not self.columns:  # of scores
            return self.teacher
        return self.teacher[:, [self.columns.index(label) for label in manifest.head.names]]


@dataclass(frozen=True)
class Data:
    """calibration: training texts. validation: what decides. test: what the chosen one is scored on, once."""

    calibration: Sequence[Text]
    validation: Split
    test: Split | None = None

    @property
    def turns(self) -> Turns | None:
        """How the task joins those of a conversation."""
        return None if self.validation.served is None else self.validation.served.turns

    @property
    def max_new_tokens(self) -> int | None:
        return None if self.validation.served is None else self.validation.served.max_new_tokens


def of_run(run: Path, calibration: Sequence[Text], served: Mapping[str, Served | None] = MappingProxyType({})) -> Data:
    """Validation and test of a run: as its task serves them, or from its predictions. Raises UserError if the run has none."""
    return Data(calibration, *(_saved_split(run, name, served.get(name)) for name in ("validation", "test")))


def _saved_split(run: Path, split: str, served: Served | None) -> Split:
    if served is not None:
        return Split(served.texts, origin=f"{run}, {split}", served=served)
    saved = predictions.load(run, split)
    return Split(
        saved.texts, _truth(saved), saved.answers["teacher"].get("logits"), saved.head.names, f"{run}, {split}"
    )


def _truth(saved: Predictions) -> list[tuple[str, ...]] | None:
    """Names of labels, or numbers as text; None for heads whose truth a variant cannot be judged on."""
    names, truth = saved.head.names, saved.truth.get(saved.head.kind)
    if truth is None:
        return None
    if saved.head.kind == "score":
        return [(repr(value),) for value in truth.tolist()]
    if saved.head.several:
        return [tuple(name for name, on in zip(names, row, strict=True) if on) for row in truth]
    return [(names[i],) for i in truth]


def of_file(path: str, key: str, text_column: str, label_column: str, truth: ColumnKind = "label") -> Split:
    """Read a table with texts and an optional column of labels, or a .txt of texts. Raises UserError that names the row.

    truth: the kind of the column of labels; `answer` for texts that should be written.
    """
    file = existing(path, key)
    table = Table([], lambda name: []) if file.suffix.lower() == ".txt" else read_table(file, key)
    if label_column not in table.names:
        return unlabelled(read_texts(path, text_column, key, "text_column"), f"{key}={path}")
    origin = f"{key}={path}"
    columns = {
        "text": Column("text", text_column, "text_column"),
        "label": Column(truth, label_column, "label_column"),
    }
    rows = table_rows(table, columns, origin)
    if not len(rows):
        raise UserError(f"{origin} holds no rows.")
    texts = whole_texts(rows["text"], rows.numbers, origin, rows.unit)
    labels = [(cell,) if isinstance(cell, str) else cell for cell in rows["label"]]
    return Split(texts, labels, origin=origin, joined=table.joined, rows=rows)


def unlabelled(texts: Sequence[Text], origin: str) -> Split:
    """Texts for the comparison of variants and student."""
    return Split(spread(texts, MOST), origin=origin)


def of_texts(texts: Sequence[Text], calibration: int, origin: str) -> Data:
    """Split texts without labels: half of them, at most `calibration`, calibrate; the others judge."""
    unique = list(dict.fromkeys(texts))
    fitting = set(spread(unique, min(calibration, len(unique) // 2)))
    return Data([t for t in unique if t in fitting], unlabelled([t for t in unique if t not in fitting], origin))
