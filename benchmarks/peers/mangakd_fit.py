"""What mangakd_rank.py and mangakd_tokens.py share: a teacher whose answers are in memory, models, and one timed `fit()`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch
from common import StepClock
from lightning.pytorch.loggers import CSVLogger

from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit
from mangakd.losses.loss_set import LossSet
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider
from mangakd.training.fit import Fit, fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim


class InMemory(TeacherProvider):
    """A teacher whose answers are in memory, and random: only time is measured."""

    @property
    def gives(self) -> Need:
        return Need(answer=True)

    @property
    def fingerprint(self) -> str:
        return "random"

    def prepare(self, device: torch.device, need: Need) -> InMemory:
        return self


def model_of(path: str, head: Head, name: str, tokenizer: Any) -> Encoder:
    """name: student or teacher."""
    key = f"{name}.path"
    return load.encoder(load.read_model(load.outline_for(path, head, key), path, key), head, name, tokenizer)


def timed(
    options: Any, folder: Path, task: Task, split: EncodedSplit, validation: EncodedSplit, student: Encoder, losses: LossSet,
    teacher: TeacherProvider, learning_rate: float, rows: int,
) -> StepClock:  # fmt: skip
    """One fit of options.warmup + options.steps steps of `rows` rows; the window is that of the last ones."""
    clock = StepClock(options.warmup, options.steps)
    plan = Fit(
        "benchmark", folder, task, split, validation, Optim(lr=learning_rate, warmup=0.0, schedule="constant", clip=None),
        Hardware(accelerator="cpu", batch_size=rows, precision="bf16-mixed" if options.bf16 else "32-true"), options.seed,
        trainer={"max_epochs": 1, "max_steps": clock.last}, loggers=[CSVLogger(folder, "logs", "")],
    )  # fmt: skip
    with clock.watch_any(), contextlib.redirect_stdout(sys.stderr):  # stdout is for the JSON line
        fit(student, losses, teacher.prepare(torch.device("cpu"), losses.requires.teacher), plan)
    return clock
