"""`Served`: how a task judges a student by the outputs that it gives when it is served, sequence by sequence.

A task whose rows own several sequences, such as a query's documents, or whose students write, says here what the student is asked,
and how the outputs become the arrays that its judge reads (`Task.ask` does the same for a batch in training).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Judge
from mangakd.runtime.tokenise import Text


@dataclass(frozen=True)
class Served:
    """texts: what is asked, S sequences of N rows. arrays: outputs (S, C) or (S, D), or of a student that writes its texts (S) of
    str → answers of N rows.

    truth: the judge's, (N, …). labelled: whether truth is known; if not, the score is the likeness to the student. likeness: the
    judge's score that compares the answers of two models. teacher: its answers of the N rows; None where they are not known.
    """

    texts: Sequence[Text]
    arrays: Callable[[np.ndarray], Arrays]
    judge: Judge
    truth: Arrays
    labelled: bool
    likeness: str
    teacher: Arrays | None = None

    @property
    def name(self) -> str:
        """The score that decides."""
        return self.judge.main if self.labelled else self.likeness

    def statistic(self, head: Head, outputs: np.ndarray, student: np.ndarray) -> Statistic:
        """The score that decides, of outputs (S, C), (S, D) or texts (S). student: its outputs."""
        if not self.labelled:
            return self.alike(head, outputs, student)
        return self.judge.statistics(head, self.arrays(outputs), self.truth)[self.name]

    def alike(self, head: Head, one: np.ndarray, other: np.ndarray) -> Statistic:
        """The likeness of two models' outputs."""
        return self._alike(head, one, self.arrays(other))

    def like_teacher(self, head: Head, outputs: np.ndarray) -> Statistic | None:
        return None if self.teacher is None else self._alike(head, outputs, self.teacher)

    def _alike(self, head: Head, outputs: np.ndarray, answers: Arrays) -> Statistic:
        return self.judge.statistics(head, self.arrays(outputs), self.truth, answers)[self.likeness]
