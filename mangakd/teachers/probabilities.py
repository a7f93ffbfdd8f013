"""`teacher=probabilities`: probabilities of labels that another model gave, in a file, such as `writes=soft_labels` makes it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind
from mangakd.data.probabilities import Probabilities as File
from mangakd.data.probabilities import read_probabilities
from mangakd.teachers.lookup import KEY, Answers, LookupOptions

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Probabilities(LookupOptions):
    """teacher=probabilities. path: a file (data/probabilities.py). labels: names of the numbers, where the file holds lists.

    floor: the least probability of a label. Its logarithm is the teacher's logit, and an API lists no label that is very
    unlikely. Labels that the data does not have lose their probability to the others. Answers: logits (N, C) with
    softmax(logits) = max(p, floor) / Σ max(p, floor).
    """

    noun: ClassVar[str] = "probability"
    nouns: ClassVar[str] = "probabilities"
    kind: ClassVar[Kind] = "labels"
    pairs: ClassVar[bool] = False
    text_column: str | int = "text"
    column: str | int = "probabilities"
    floor: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.floor < 0.1:
            raise UserError(f"teacher.floor={self.floor} must be above 0 and below 0.1.")

    @cached_property
    def file(self) -> File:
        return read_probabilities(self.path, self.labels, self.text_column, self.column)

    @cached_property
    def answers(self) -> Answers:
        return Answers({(text,): i for text, i in self.file.places.items()}, self.file.table)

    def head(self, task: Head, models: Sequence[Head]) -> Head:
        """Raises UserError for tasks of several labels a row, and for a label of the data that the file does not name."""
        super().head(task, models)
        if task.several:
            raise UserError(
                "teacher=probabilities gives probabilities with the sum 1, and task.problem=multi_label has a probability of its "
                "own for each label. Choose another teacher."
            )
        if lacking := [name for name in task.names if name not in self.file.names]:
            raise UserError(
                f"{KEY}={self.path} has no probability for {', '.join(lacking[:5])}, which the data has as a label; it names "
                f"{', '.join(self.file.names[:5])}. Correct the names, or set teacher.labels in the order of the numbers."
            )
        return task

    def table(self, head: Head) -> np.ndarray:
        """(N, C) float32 logits in the order of the head's labels."""
        names = head.names
        table = self.file.table[:, [self.file.names.index(name) for name in names]]
        sums = table.sum(1, keepdims=True)
        if others := [name for name in self.file.names if name not in names]:
            log.warning(
                "%s: the data has no row of %s; their probability, %.4f of each text in the mean and %.4f at most, goes to the "
                "other labels in proportion.", self.name, ", ".join(others), 1 - sums.mean(), 1 - sums.min(),
            )  # fmt: skip
        if lacking := int((sums == 0).sum()):
            raise UserError(
                f"{KEY}={self.path} gives {lacking} texts no probability for any label of the data ({', '.join(names[:5])}). "
                "Remove these rows, or correct the names."
            )
        floored = np.maximum(table / sums, self.floor)
        return np.log(floored / floored.sum(1, keepdims=True)).astype(np.float32)
