"""Where the student is wrong: the pairs of classes it confuses, and texts on which it and the teacher disagree."""

from collections.abc import Mapping

import numpy as np

from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.blocks import Block, Section, Table
from mangakd.evaluation.report.sections import NAMES
from mangakd.evaluation.statistics import Answers, divergence

PAIRS, EXAMPLES, LONGEST = 10, 20, 160
MOST_NAMED = 10


def rare_mask(test: Predictions) -> np.ndarray:
    """(C) bool: classes with less than half of an equal share of the training rows."""
    counts = test.facts["train_counts"]
    return counts < 0.5 * counts.mean()


def rare_classes(test: Predictions) -> list[str]:
    """Their names, in one sentence; none where no class is rare."""
    rare = [label for label, is_rare in zip(test.head.names, rare_mask(test), strict=True) if is_rare]
    if not rare:
        return []
    more = f" and {len(rare) - MOST_NAMED} more" if len(rare) > MOST_NAMED else ""
    listing = ", ".join(rare[:MOST_NAMED])
    return [f"Rare (less than half of an equal share of the training rows): {listing}{more}."]


def confused(answers: Mapping[str, Answers], test: Predictions) -> Section:
    """The student's commonest mistakes, and how often the other models make them."""
    names = [name for name in NAMES if name in answers]
    counts = {name: confusion(answers[name]) for name in names}
    student, labels = counts["student"], test.head.names
    order = np.argsort(-student, axis=None, kind="stable")[:PAIRS]
    places = [(i, j) for i, j in zip(*np.unravel_index(order, student.shape), strict=True) if student[i, j]]
    rows = [[f"{labels[i]} → {labels[j]}", *(str(counts[name][i, j]) for name in names)] for i, j in places]
    if not rows:
        return Section("Confused classes", ["The student makes no mistake on test."])
    note = "Test rows of the first class that were taken for the second."
    return Section("Confused classes", [note, Table(["is → was taken for", *(NAMES[n] for n in names)], rows)])


def confusion(answers: Answers) -> np.ndarray:
    """(C, C) rows whose class i was missed and to which class j was given instead."""
    missed, invented = answers.truth & ~answers.predicted, answers.predicted & ~answers.truth
    return (missed.T.astype(np.float32) @ invented.astype(np.float32)).astype(np.int64)  # exact below 2²⁴, and fast


def disagreements(answers: Mapping[str, Answers], test: Predictions) -> Section:
    """Where the answers differ, the rows with the largest divergence first."""
    teacher, student = answers["teacher"], answers["student"]
    differ = np.flatnonzero((teacher.predicted != student.predicted).any(-1))
    if not len(differ):
        return Section("Disagreements", ["Student and teacher answer every test row alike."])
    only_teacher = int((teacher.right & ~student.right)[differ].sum())
    only_student = int((student.right & ~teacher.right)[differ].sum())
    note = (
        f"Student and teacher differ on {len(differ)} of {len(test.texts)} test rows: there the teacher is right on "
        f"{only_teacher}, the student on {only_student}, neither on {len(differ) - only_teacher - only_student}. "
        f"The {min(EXAMPLES, len(differ))} with the largest KL:"
    )
    order = differ[np.argsort(-divergence(teacher, student)[differ], kind="stable")][:EXAMPLES]
    rows = [
        [
            _cut(test.texts[i]),
            _names(test, teacher.truth[i]),
            *(_answer(test, model, i) for model in (teacher, student)),
        ]
        for i in order
    ]
    blocks: list[Block] = [note, Table(["text", "is", "teacher says", "student says"], rows, texts=True)]
    return Section("Disagreements", blocks)


def _names(test: Predictions, marks: np.ndarray) -> str:
    return ", ".join(label for label, on in zip(test.head.names, marks, strict=True) if on) or "nothing"


def _answer(test: Predictions, answers: Answers, row: int) -> str:
    """With its confidence, where there is one answer."""
    names = _names(test, answers.predicted[row])
    return names if answers.several else f"{names} ({answers.confidence[row, 0]:.0%})"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
