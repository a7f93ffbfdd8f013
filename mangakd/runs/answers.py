"""Answers of teacher, student and baseline on validation and test. A run asks each model once and passes the answers on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from torch import Tensor

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.data.encoded import EncodedSplit
from mangakd.data.gather import gather, gather_all
from mangakd.data.loader import EvalBatches
from mangakd.models.encoder import Encoder
from mangakd.runs.texts import Splits
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.ensemble import member_logits
from mangakd.training.callbacks.progress import progress
from mangakd.training.hardware import Hardware

Rows = dict[str, Tensor]  # what `Task.ask` gives, for all rows of a split
Answers = dict[str, Rows]  # by split
Name = TypeVar("Name")
SOME = 20_000
OWN = -1  # the number of the teacher as a whole beside its members' 0, 1, …


def answers_of(
    ask: Callable[[Batch], Mapping[Name, Tensor]],
    splits: Splits,
    hardware: Hardware,
    title: str,
    precision: str = "32-true",
) -> dict[str, dict[Name, Tensor]]:
    """ask: a batch → rows of answers, on `hardware.device`. precision: of the forward, as in `hardware.precision`."""
    answers = {}
    for name in ("validation", "test"):
        with progress(f"{title} on {name}", len(splits[name])) as advance:
            batches = EvalBatches(splits[name], hardware.eval_batch_size)
            answers[name] = gather_all(ask, batches, hardware.device, advance, precision)
    return answers


def with_members(task: Task, outputs: Outputs, batch: Batch) -> dict[tuple[int, str], Tensor]:
    """(OWN, name) → the teacher's answer, (number, name) → that of a member, where the members' own are there.

    outputs: of the teacher for the batch.
    """
    each = {OWN: outputs}
    if outputs.members is not None:
        for number, logits in enumerate(member_logits(outputs).unbind(1)):
            each[number] = replace(outputs, logits=logits, members=None, weights=None)
    return {(number, name): rows for number, one in each.items() for name, rows in _ask(task, one, batch).items()}


def _ask(task: Task, outputs: Outputs, batch: Batch) -> Rows:
    return task.ask(lambda _: outputs, batch)


def apart(answers: Mapping[str, Mapping[tuple[int, str], Tensor]]) -> tuple[Answers, dict[str, list[Rows]]]:
    """What `with_members` put together: (the teacher's answers, those of its members)."""
    numbered = {
        split: {number: {name: rows[one, name] for one, name in rows if one == number} for number, _ in rows}
        for split, rows in answers.items()
    }
    own = {split: each.pop(OWN) for split, each in numbered.items()}
    return own, {split: list(each.values()) for split, each in numbered.items()}


def student_answers(
    task: Task, student: Encoder, splits: Splits, hardware: Hardware, title: str, teacher: TeacherProvider | None = None
) -> Answers:
    """In fp32, as the student in its folder answers. teacher: beside whom it answers, for tasks that compare."""
    student.to(hardware.device).eval().require(Need(answer=True))
    if teacher is not None:
        teacher.prepare(hardware.device, Need(answer=True))
    answers = answers_of(lambda b: task.ask(lambda b: student(b["student"]), b, teacher), splits, hardware, title)
    student.cpu()
    return answers


def answers_of_some(teacher: TeacherProvider, rows: EncodedSplit, hardware: Hardware) -> Tensor:
    """The teacher's answers (n, …) to at most SOME sequences of `rows`, spread evenly over them."""
    sequences = rows.sequences
    positions = np.linspace(0, len(sequences) - 1, min(SOME, len(sequences)), dtype=np.int64)
    teacher.prepare(hardware.device, Need(answer=True))
    with progress("teacher on training texts", len(positions)) as advance:
        batches = EvalBatches(sequences, hardware.eval_batch_size, positions)
        return gather(lambda batch: teacher(batch).answer, batches, hardware.device, advance, hardware.precision)


def to_arrays(rows: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in rows.items()}
