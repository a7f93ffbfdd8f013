"""`Task`: what a kind of task needs from the rest: targets from label names, and the judge of its answers."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mangakd.core.spec import Head, Kind
from mangakd.data.rows import Rows
from mangakd.data.source import Corpus
from mangakd.evaluation.judge import Judge
from mangakd.tasks.meters import Meters


class Task(ABC):
    """name: for folders and cards. kind: of its head, which also chooses among hardware.tasks.

    judge: names, ranks and computes the scores. monitor: the judge's score that picks the best epoch.
    """

    name: str
    kind: Kind
    judge: Judge
    monitor: str

    @abstractmethod
    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        """The head that student and teacher need. tokenizer: the student's."""

    @abstractmethod
    def targets(self, rows: Rows, labels: tuple[str, ...]) -> np.ndarray:
        """Targets of a split for a head with these label names."""

    @abstractmethod
    def meters(self, outputs: int, teacher: bool, together: bool) -> Meters:
        """One meter for each score of `judge.statistics`, for heads of so many outputs.

        teacher: whether the teacher's answers are given. together: whether other ranks hold a part of the rows.
        """
