"""Text classification: one label of C, or any subset of C labels (`problem=multi_label`). `task=intent` is this."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind
from mangakd.data import checks
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows, names_of
from mangakd.data.source import Corpus
from mangakd.evaluation.judge import Arrays, Judge
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.tasks.base import Task
from mangakd.tasks.classification.encode import labelled, targets
from mangakd.tasks.classification.judge import ClassificationJudge
from mangakd.tasks.classification.meters import meters
from mangakd.tasks.meters import Meters

Problem = Literal["single_label", "multi_label"]


@dataclass
class Classification(Task):
    """problem: single_label, or multi_label, where a row may have any number of the labels."""

    name: str = "intent"
    kind: Kind = "labels"
    problem: Problem = "single_label"
    judge: Judge = field(default_factory=ClassificationJudge)
    monitor: str = "accuracy"

    def __post_init__(self) -> None:
        if self.problem not in ("single_label", "multi_label"):
            raise UserError(f"task.problem={self.problem!r}; known: single_label, multi_label.")

    @property
    def columns(self) -> Columns:
        return {"text": "text", "label": "labels" if self.problem == "multi_label" else "label"}

    def prepare(self, corpus: Corpus) -> Corpus:
        """With the label names in the head's order: the source's, else sorted.

        Raises UserError for a class without a training row, fewer than two classes, a held-out label that train lacks, and
        several labels in a row of a single-label task.
        """
        for rows in corpus.splits.values():
            self._check_one_label(rows)
        labels = corpus.labels or names_of(corpus.train, "label")
        checks.warn_of_alike(labels)
        for name in ("validation", "test"):
            checks.check_labels(name, corpus.splits[name], "label", set(labels))
        checks.check_classes(labels, corpus.train, "label")
        return replace(corpus, labels=labels)

    def _check_one_label(self, rows: Rows) -> None:
        if self.problem == "multi_label":
            return
        several = next((i for i, names in enumerate(rows["label"]) if len(names) > 1), None)
        if several is not None:
            raise UserError(
                f"{rows.where(several)} has several labels ({', '.join(rows['label'][several])}), but "
                "task.problem=single_label. Set task.problem=multi_label."
            )

    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        return Head.of_labels(corpus.labels, several=self.problem == "multi_label")

    def encode(self, rows: Rows, head: Head, tokenise: Tokenise) -> EncodedSplit:
        return labelled(tokenise(rows["text"]), targets(rows, head))

    def own_loss(self) -> HardLabelLoss:
        return HardLabelLoss()

    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        return meters(head, teacher, together)

    def facts(self, train: EncodedSplit, head: Head) -> Arrays:
        """train_counts (C): training rows of each class, which say what is rare."""
        labels = train.columns["labels"]
        return {"train_counts": labels.sum(0) if head.several else np.bincount(labels, minlength=head.outputs)}
