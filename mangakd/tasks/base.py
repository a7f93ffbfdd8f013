"""`Task`: what a family of problems needs from the rest: targets from label names, and the judge of its answers."""

from abc import ABC, abstractmethod

import numpy as np

from mangakd.core.spec import Problem
from mangakd.data.rows import Rows
from mangakd.evaluation.judge import Judge
from mangakd.tasks.meters import Meters


class Task(ABC):
    """name: for folders and cards. family: which of hardware.tasks suits it. problem: the head's kind.

    judge: names, ranks and computes the scores. monitor: the judge's score that picks the best epoch.
    """

    name: str
    family: str
    problem: Problem
    judge: Judge
    monitor: str

    @abstractmethod
    def targets(self, rows: Rows, labels: tuple[str, ...]) -> np.ndarray:
        """Targets of a split for a head with these label names."""

    @abstractmethod
    def meters(self, outputs: int, teacher: bool, together: bool) -> Meters:
        """One meter for each score of `judge.statistics`, for heads of so many outputs.

        teacher: whether the teacher's answers are given. together: whether other ranks hold a part of the rows.
        """
