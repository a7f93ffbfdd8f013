"""`Served`: how a task judges a student by the outputs that it gives when it is served, sequence by sequence.

A task whose rows own several sequences, such as a query's documents, or whose students write, says here what the student is
asked, and how the outputs become the arrays that its judge reads (`Task.ask` does the same for a batch in training).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Judge
from mangakd.runtime.tokenise import Text
from mangakd.runtime.turns import Turns


@dataclass(frozen=True)
class Served:
    """texts: what is asked, S sequences of N rows. arrays: outputs (S, C) or (S, D), or of a student that writes its texts (S) of
    str → answers of N rows.

    truth: the judge's, (N, …). labelled: whether truth is known; if not, the score is the likeness to the student. likeness: the
    judge's score that compares the answers of two models. teacher: its answers of the N rows; None where they are not known.
    others: further scores that a variant may not lose. turns, max_new_tokens: of students that write, how a text that is a tuple
    of turns becomes a source, and the tokens of what is written for it.
    """

    texts: Sequence[Text]
    arrays: Callable[[np.ndarray], Arrays]
    judge: Judge
    truth: Arrays
    labelled: bool
    likeness: str
    teacher: Arrays | None = None
    others: tuple[str, ...] = ()
    turns: Turns | None = None
    max_new_tokens: int | None = None

    @property
    def name(self) -> str:
        """The score that decides."""
        return self.judge.main if self.labelled else self.likeness

    def statistic(self, head: Head, outputs: np.ndarray, student: np.ndarray) -> Statistic:
        """The score that decides, of outputs (S, C), (S, D) or texts (S). student: its outputs."""
        if not self.labelled:
            return self.alike(head, outputs, student)
        return self._statistics(head, outputs)[self.name]

    def further(self, head: Head, outputs: np.ndarray) -> dict[str, Statistic]:
        """Those of `others` that the rows have."""
        statistics = self._statistics(head, outputs) if self.others else {}
        return {name: statistics[name] for name in self.others if name in statistics}

    def alike(self, head: Head, one: np.ndarray, other: np.ndarray) -> Statistic:
        """The likeness of two models' outputs."""
        return self._alike(head, one, self.arrays(other))

    def like_teacher(self, head: Head, outputs: np.ndarray) -> Statistic | None:
        """None, too, where the teacher's answers lack what is compared."""
        return None if self.teacher is None else self._statistics(head, outputs, self.teacher).get(self.likeness)

    def _alike(self, head: Head, outputs: np.ndarray, answers: Arrays) -> Statistic:
        return self._statistics(head, outputs, answers)[self.likeness]

    def _statistics(self, head: Head, outputs: np.ndarray, answers: Arrays | None = None) -> dict[str, Statistic]:
        return self.judge.statistics(head, self.arrays(outputs), self.truth, answers)
