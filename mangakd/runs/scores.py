"""The scores in metrics.json: of the teacher, of its members, and of students beside the teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation.judge import Arrays, Judge
from mangakd.evaluation.table import reference
from mangakd.runs.answers import Answers, Rows, to_arrays

Metrics = dict[str, float]


@dataclass(frozen=True)
class Scorer:
    """judge, head: of the task. truth: split → its columns."""

    judge: Judge
    head: Head
    truth: Mapping[str, Arrays]

    def teacher(self, answers: Answers, monitor: str, teaches: bool = True) -> Metrics:
        """On test. teaches: whether any loss learns from it. Raises UserError where it does, near chance on validation."""
        validation, test = (self._values(answers[name], name) for name in ("validation", "test"))
        if teaches:  # else its texts are the data, and the model beside the student may be untrained
            check_above_chance(self.judge, self.head, validation, self.truth["validation"])
        score = monitor if monitor in validation and monitor in test else self.judge.main
        print(f"teacher: test {score} {test[score]:.4f}, validation {validation[score]:.4f}", flush=True)
        return {f"teacher/test/{name}": value for name, value in test.items()}

    def members(self, answers: Sequence[Rows]) -> Metrics:
        """Means over the members of an ensemble, on test. answers: of each member; {} for none."""
        members = [self._values(each, "test") for each in answers]
        common = [name for name in members[0] if all(name in scores for scores in members)] if members else []
        return {f"members/test/{name}": float(np.mean([scores[name] for scores in members])) for name in common}

    def reference(self, name: str, answers: Answers) -> Metrics:
        """On test. name: a row of the table."""
        return {
            f"{reference(name)}test/{score}": value for score, value in self._values(answers["test"], "test").items()
        }

    def student(self, answers: Answers, teacher: Answers, metrics: Metrics, prefix: str = "") -> Metrics:
        """On test, with the share of the teacher's main score that the student keeps. metrics: the teacher's, among others."""
        main = self.judge.main
        scores = self._values(answers["test"], "test", teacher["test"])
        scores["retention"] = self.judge.scores[main].retention(scores[main], metrics[f"teacher/test/{main}"])
        return {f"{prefix}test/{name}": value for name, value in scores.items()}

    def _values(self, answers: Rows, split: str, teacher: Rows | None = None) -> Metrics:
        other = None if teacher is None else to_arrays(teacher)
        return self.judge.values(self.head, to_arrays(answers), self.truth[split], other)


def check_above_chance(judge: Judge, head: Head, scores: Metrics, truth: Arrays) -> None:
    """Raises UserError for validation scores less than a tenth of the way from chance to perfect."""
    for name, chance in judge.chance(head, truth).items():
        score = judge.scores[name]
        perfect = 1.0 if score.higher else 0.0
        if score.gain(scores[name], chance) < 0.1 * score.gain(perfect, chance):
            order = ", or its labels are in another order (teacher.labels)" if head.kind == "labels" else ""
            raise UserError(
                f"the teacher is near chance: validation {name} {scores[name]:.3f}; a model that has learnt nothing has "
                f"{chance:.3f}. The teacher was not fine-tuned for this task (teacher.fit.mode=always), or not long enough "
                f"(teacher.fit.epochs, teacher.fit.lr){order}."
            )
