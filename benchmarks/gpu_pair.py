"""A distillation step of the intent pair on one device, through mangakd's own `fit`: speed, memory, where the time goes.

Imported by gpu.py. DistilBERT (66M) teaches TinyBERT 4L-312 (14.5M), both with random weights, on random tokens; every text is
as long as the profile allows, so that nothing is padding. The teacher answers live, or from a store that it filled before.

What is counted: seconds are those between two synchronisations of the device, a window of steps apart, checkpoints and
validation left out. Then some steps run under torch.profiler. A kernel belongs to the models when it was launched inside
Encoder.forward of student or teacher, or by the backward of an operation of the student's forward, which autograd's
sequence numbers tell. Everything else of a step's seconds is outside them: losses, clipping, optimizer, copies to the device,
logging, and the device waiting for the host. On a CPU, operators take the place of kernels.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AutoConfig, AutoModelForSequenceClassification

from mangakd.core.outputs import Outputs
from mangakd.core.spec import ModelSpec
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Tokens
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.models.encoder import Encoder
from mangakd.models.heads import trained_head
from mangakd.planning.job import Job, Machine
from mangakd.planning.plan import Estimate, estimate
from mangakd.planning.sizes import Model
from mangakd.tasks.classification.encode import labelled
from mangakd.tasks.classification.task import Classification
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import Cached
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import TeacherContext
from mangakd.training.fit import Fit, fit
from mangakd.training.hardware import Hardware
from mangakd.training.module import DistillModule
from mangakd.training.optim import Optim

MODELS = "student or teacher forward"  # the profiler's name for it
BACKWARD = "autograd::engine::evaluate_function"
TEACHERS = {"live": "replicated", "stored": "cached"}  # as they are called here and in planning


class Schedule(NamedTuple):
    """Steps before the clock runs, windows, steps of a window, and steps under the profiler."""

    warm: int
    windows: int
    length: int
    profiled: int

    @property
    def steps(self) -> int:
        return self.warm + self.windows * self.length + self.profiled + 1


@dataclass
class Clock:
    """Ticks at the start of each step. seconds: of a step, by window. peak: bytes, over the windows."""

    schedule: Schedule
    device: torch.device
    peak: float = 0.0
    profile: Any = None
    profiled: float = 0.0  # seconds of the profiled steps
    forwards: list[tuple[int, int]] = field(default_factory=list)  # autograd's sequence numbers, from and to
    _marks: list[float] = field(default_factory=list)
    _step: int = 0

    @property
    def seconds(self) -> list[float]:
        return [(end - start) / self.schedule.length for start, end in pairwise(self._marks)]

    def tick(self) -> None:
        step, self._step = self._step - self.schedule.warm, self._step + 1
        last = self.schedule.windows * self.schedule.length
        if step == 0:
            forget_peak(self.device)
        if 0 <= step <= last and step % self.schedule.length == 0:
            self._marks.append(now(self.device))
        if step == last:
            self.peak = peak(self.device)
            self.profile = profile(activities=[ProfilerActivity.CPU, *_activity(self.device)])
            self.profile.start()
            self.forwards.clear()  # only those under the profiler count
            self.profiled = now(self.device)
        if step == last + self.schedule.profiled:
            self.profiled = now(self.device) - self.profiled
            self.profile.stop()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Context in which steps tick and the profiler marks the models' forward passes."""
        start, forward = DistillModule.on_train_batch_start, Encoder.forward

        def tick_start(module: DistillModule, *args: Any) -> None:
            self.tick()
            start(module, *args)

        def mark_forward(encoder: Encoder, inputs: Any) -> Outputs:
            first = torch.autograd._get_sequence_nr()
            with record_function(MODELS):
                outputs = forward(encoder, inputs)
            self.forwards.append((first, torch.autograd._get_sequence_nr()))
            return outputs

        with (
            patch.object(DistillModule, "on_train_batch_start", tick_start),
            patch.object(Encoder, "forward", mark_forward),
        ):
            yield

    def of_models(self) -> Iterator[Any]:
        """The profiled operators that launched the models' kernels; none is part of another."""
        for event in self.profile.events():
            if event.device_type != DeviceType.CPU:
                continue  # a kernel itself
            if event.name == MODELS:
                yield from event.cpu_children  # not itself: the profiler may count a named range as a kernel
            elif event.name.startswith(BACKWARD) and self._of_a_forward(event.sequence_nr):
                yield event

    def in_models(self) -> float:
        """Seconds of a step in the models' kernels, with all that the operators called."""
        on_device = self.device.type != "cpu"
        times = (event.device_time_total if on_device else event.cpu_time_total for event in self.of_models())
        return sum(times) / 1e6 / self.schedule.profiled

    def _of_a_forward(self, number: int) -> bool:
        return any(first <= number < end for first, end in self.forwards)

    def step_seconds(self) -> float:
        return statistics.median(self.seconds)

    def outside(self) -> float:
        """Share of a step. The profiler slows the host and not the kernels, so on a GPU the step is one without it."""
        step = self.step_seconds() if self.device.type != "cpu" else self.profiled / self.schedule.profiled
        return 1 - self.in_models() / step


def _activity(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CUDA] if device.type == "cuda" else []


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak(device: torch.device) -> float:
    """Bytes of the allocator's peak; on a CPU of the whole process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True)
class Pair:
    """sizes: entries of a Hugging Face config. vocabulary: tokens that texts are drawn from."""

    student: dict[str, Any]
    teacher: dict[str, Any]
    schedule: Schedule
    hardware: Hardware
    device: torch.device

    def encoder(self, side: str) -> Encoder:
        """The same weights each time."""
        torch.manual_seed(0)
        config = AutoConfig.for_model(**getattr(self, side))
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
        spec = ModelSpec.from_config(model.config, f"{side} {config.model_type}", trained_head(model.config), "random")
        return Encoder(model, spec).attend_with(self.hardware.attention)

    def split(self, rows: int, seed: int) -> EncodedSplit:
        """Random texts of full length and random labels."""
        rng, length = np.random.default_rng(seed), self.hardware.max_length
        config = AutoConfig.for_model(**self.student)
        ids = rng.integers(1, config.vocab_size, rows * length, dtype=np.int32)
        tokens = Tokens(ids, np.arange(rows) * length, np.full(rows, length), np.arange(rows) + seed * 10_000_000)
        return labelled(Sides(tokens, tokens, 0, 0), rng.integers(0, config.num_labels, rows))

    def provider(self, kind: str, train: EncodedSplit, folder: Path) -> TeacherProvider:
        head = self.encoder("student").spec.head
        dtype = self.hardware.teacher.weights()

        def answering() -> Encoder:
            return self.encoder("teacher").to(dtype)

        if kind == "live":
            return LocalTeacher(answering(), head)
        context = TeacherContext(
            head=head, load=lambda member: answering(), splits={"train": train}, cache=folder, device=self.device,
            batch_size=self.hardware.eval_batch_size,
            progress=lambda title, total: contextlib.nullcontext(lambda rows: None),
        )  # fmt: skip
        return Cached(path="random").provider(context)

    @property
    def rows(self) -> int:
        """Of an optimizer step."""
        return self.hardware.step.most(self.hardware.max_length)

    def plan(self, kind: str, machine: Machine) -> Estimate:
        models = (Model.from_sizes(getattr(self, side), side, "labels", side) for side in ("student", "teacher"))
        hardware = self.hardware
        job = Job(
            f"intent pair, teacher {kind}", self.schedule.steps * self.rows, 1, hardware.batch_size, hardware.max_length,
            precision=hardware.precision, teacher=TEACHERS[kind],
            teacher_dtype=str(hardware.teacher.weights()).removeprefix("torch."),
        )  # fmt: skip
        return estimate(*models, machine, job)

    def measure(self, kind: str, machine: Machine, folder: Path) -> dict[str, Any]:
        """One row of the result. kind: of teacher."""
        gc.collect()
        hardware, clock = self.hardware, Clock(self.schedule, self.device)
        train = self.split(self.schedule.steps * self.rows, seed=1)
        student, teacher = self.encoder("student").train(), self.provider(kind, train, folder)
        gc.collect()  # the teacher that filled a store must not count as memory of the training
        losses = LossSet({"hard_label": HardLabelLoss(weight=0.3), "output": OutputLoss(weight=0.7, temperature=2.0)})
        losses.bind(student.spec, teacher.spec)
        setup = Fit(
            f"intent pair, teacher {kind}", folder / kind, Classification(), train, self.split(self.rows, seed=2),
            Optim(), hardware, 0, {"max_epochs": 1, "limit_val_batches": 0},
            loggers=[CSVLogger(folder / kind, name="", version="")],
        )  # fmt: skip
        with clock.watching():
            fit(student, losses, teacher, setup)
        expected = self.plan(kind, machine)
        step = clock.step_seconds()
        return {
            "teacher": kind,
            "samples_per_second": self.rows / step,
            "samples_per_second_planned": expected.samples_per_second,
            "step_ms": 1e3 * step,
            "windows_ms": [1e3 * seconds for seconds in clock.seconds],
            "mfu": sum(expected.flops.values()) / step / machine.peak(hardware.precision),
            "peak_bytes": clock.peak,
            "peak_bytes_planned": expected.bytes - expected.memory["reserved"],
            "models_ms": 1e3 * clock.in_models(),
            "outside": clock.outside(),
        }
