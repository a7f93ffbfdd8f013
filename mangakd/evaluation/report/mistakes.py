"""Where the student is wrong: the pairs of classes it confuses, and texts on which it and the teacher disagree."""

import numpy as np

from mangakd.evaluation.report.blocks import Block, Section, Table
from mangakd.evaluation.report.measure import Measured
from mangakd.evaluation.report.sections import NAMES, models
from mangakd.evaluation.statistics import Answers, divergence

PAIRS, EXAMPLES, LONGEST = 10, 20, 160


def confused(found: Measured) -> Section:
    """The student's commonest mistakes, and how often the other models make them."""
    names = models(found)
    counts = {name: confusion(found.answers[name]) for name in names}
    student, labels = counts["student"], found.test.labels
    order = np.argsort(-student, axis=None, kind="stable")[:PAIRS]
    places = [(i, j) for i, j in zip(*np.unravel_index(order, student.shape), strict=True) if student[i, j]]
    rows = [[f"{labels[i]} → {labels[j]}", *(str(counts[name][i, j]) for name in names)] for i, j in places]
    if not rows:
        return Section("Confused classes", ["The student makes no mistake on test."])
    note = "Test rows of the first class that were taken for the second."
    return Section("Confused classes", [note, Table(["is → was taken for", *(NAMES[n] for n in names)], rows)])


def confusion(answers: Answers) -> np.ndarray:
    """(C, C) rows whose class i was missed and to which class j was given instead."""
    missed, invented = answers.truth & ~answers.said, answers.said & ~answers.truth
    return (missed.T.astype(np.float32) @ invented.astype(np.float32)).astype(np.int64)  # exact below 2²⁴, and fast


def disagreements(found: Measured) -> Section:
    """Where the answers differ, the rows with the largest divergence first."""
    teacher, student = found.answers["teacher"], found.answers["student"]
    differ = np.flatnonzero((teacher.said != student.said).any(-1))
    if not len(differ):
        return Section("Disagreements", ["Student and teacher answer every test row alike."])
    only_teacher = int((teacher.right & ~student.right)[differ].sum())
    only_student = int((student.right & ~teacher.right)[differ].sum())
    note = (
        f"Student and teacher differ on {len(differ)} of {len(found.test.texts)} test rows: there the teacher is right on "
        f"{only_teacher}, the student on {only_student}, neither on {len(differ) - only_teacher - only_student}. "
        f"The {min(EXAMPLES, len(differ))} with the largest KL:"
    )
    order = differ[np.argsort(-divergence(teacher, student)[differ], kind="stable")][:EXAMPLES]
    rows = [[_cut(found.test.texts[i]), _labels(found, teacher.truth[i]), _said(found, teacher, i), _said(found, student, i)]
            for i in order]  # fmt: skip
    blocks: list[Block] = [note, Table(["text", "is", "teacher says", "student says"], rows, texts=True)]
    return Section("Disagreements", blocks)


def _labels(found: Measured, chosen: np.ndarray) -> str:
    return ", ".join(label for label, on in zip(found.test.labels, chosen, strict=True) if on) or "nothing"


def _said(found: Measured, answers: Answers, row: int) -> str:
    """With its confidence, where there is one answer."""
    said = _labels(found, answers.said[row])
    return said if answers.multi_label else f"{said} ({answers.confidence[row, 0]:.0%})"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
