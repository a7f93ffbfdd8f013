"""The scores in metrics.json: of the teacher, of its members, and of students beside the teacher."""

from collections.abc import Mapping, Sequence

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation.judge import Arrays, Judge
from mangakd.runs.answers import Answers, Rows, to_arrays

Metrics = dict[str, float]


def teacher_scores(judge: Judge, head: Head, monitor: str, answers: Answers, truth: Mapping[str, Arrays]) -> Metrics:
    """Test scores of the teacher. Raises UserError when the teacher is near chance on validation."""
    validation, test = (judge.values(head, to_arrays(answers[name]), truth[name]) for name in ("validation", "test"))
    check_above_chance(judge, head, validation, truth["validation"])
    print(f"teacher: test {monitor} {test[monitor]:.4f}, validation {validation[monitor]:.4f}", flush=True)
    return {f"teacher/test/{name}": value for name, value in test.items()}


def check_above_chance(judge: Judge, head: Head, scores: Metrics, truth: Arrays) -> None:
    """Raises UserError for validation scores less than a tenth of the way from chance to perfect."""
    for name, chance in judge.chance(head, truth).items():
        score = judge.scores[name]
        perfect = 1.0 if score.higher else 0.0
        if score.gain(scores[name], chance) < 0.1 * score.gain(perfect, chance):
            raise UserError(
                f"the teacher is near chance: validation {name} {scores[name]:.3f}; a model that has learnt nothing has "
                f"{chance:.3f}. The teacher was not fine-tuned for this task (teacher.fit.mode=always), not long enough "
                "(teacher.fit.epochs, teacher.fit.lr), or its labels are in another order (teacher.labels)."
            )


def member_scores(judge: Judge, head: Head, answers: Sequence[Rows], truth: Arrays) -> Metrics:
    """`members/test/…`: means over the members of an ensemble. answers: of each member; {} for none."""
    members = [judge.values(head, to_arrays(each), truth) for each in answers]
    common = [name for name in members[0] if all(name in scores for scores in members)] if members else []
    return {f"members/test/{name}": float(np.mean([scores[name] for scores in members])) for name in common}


def student_scores(
    judge: Judge, head: Head, answers: Rows, truth: Arrays, teacher: Rows, teacher_main: float, prefix: str = ""
) -> Metrics:
    """On test, with the share of the teacher's main score that the student keeps. teacher: its answers to the same rows."""
    scores = judge.values(head, to_arrays(answers), truth, to_arrays(teacher))
    scores["retention"] = judge.scores[judge.main].retention(scores[judge.main], teacher_main)
    return {f"{prefix}test/{name}": value for name, value in scores.items()}
