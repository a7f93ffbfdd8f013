"""Answers of teacher, student and baseline on validation and test. A run asks each model once and passes the answers on."""

from collections.abc import Callable

import torch
from torch import Tensor

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.data.gather import gather
from mangakd.data.loader import EvalBatches
from mangakd.models.encoder import Encoder
from mangakd.runs.texts import Splits
from mangakd.teachers.ensemble import member_logits
from mangakd.training.callbacks.progress import progress
from mangakd.training.hardware import Hardware

Answers = dict[str, Tensor]  # split → logits (N, C)


def answers_of(
    ask: Callable[[Batch], Tensor], splits: Splits, hardware: Hardware, title: str, precision: str = "32-true"
) -> Answers:
    """ask: a batch → rows of answers, on `hardware.device`. precision: of the forward, as in `hardware.precision`."""
    answers = {}
    for name in ("validation", "test"):
        with progress(f"{title} on {name}", len(splits[name])) as advance:
            batches = EvalBatches(splits[name], hardware.eval_batch_size)
            answers[name] = gather(ask, batches, hardware.device, advance, precision)
    return answers


def with_members(outputs: Outputs) -> Tensor:
    """(B, 1 + M, C): a teacher's logits, then those of its members; M is 0 where the members' own are not there."""
    logits = outputs.logits[:, None]
    return logits if outputs.members is None else torch.cat([logits, member_logits(outputs)], 1)


def apart(answers: Answers) -> tuple[Answers, Answers]:
    """What `with_members` put together: (the teacher's answers, those of its members (N, M, C))."""
    own = {name: rows[:, 0].contiguous() for name, rows in answers.items()}
    return own, {name: rows[:, 1:] for name, rows in answers.items()}


def student_answers(student: Encoder, splits: Splits, hardware: Hardware, title: str) -> Answers:
    """In fp32, as the student in its folder answers."""
    student.to(hardware.device).eval().require(Need(logits=True))
    answers = answers_of(lambda batch: student(batch["student"]).logits, splits, hardware, title)
    student.cpu()
    return answers
