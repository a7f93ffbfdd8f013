"""Distillation with mangakd: samples per second of a training step.

    python benchmarks/peers/mangakd_kd.py --data PATH --padding bucketed|dynamic --teacher live|stored --steps 230

Prints one JSON line, as the peers do, and counts the same way. The training loop is `mangakd.training.fit.fit()`, which is
what `train.py` runs: Lightning's Trainer with mangakd's progress, checkpoint and signal callbacks and its CSV log.
`--padding bucketed` is mangakd's own order of batches; `--padding dynamic` puts the peers' order in its place, so that
mangakd pads the very batches that they pad. `--teacher stored` reads soft targets that the teacher wrote down beforehand:
what a second run, a sweep or a later epoch pays.
As with the peers there is no gradient clipping and the learning rate is constant.

Batches of one length follow each other in random order, so a bucketed window must be long to be typical: 230 steps after 5
of warm-up are the whole of CLINC150's first epoch but for 5 batches.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
from common import (
    ALPHA,
    LEARNING_RATE,
    MAX_LENGTH,
    TEMPERATURE,
    SeededOrder,
    Settings,
    StepClock,
    parser_of,
    print_line,
)
from lightning.pytorch.loggers import CSVLogger

import mangakd
from mangakd.core.outputs import Batch
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.sampler import BucketSampler
from mangakd.data.sources import Clinc150
from mangakd.data.tokenising import tokenise
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.location import EMBEDDED
from mangakd.students.build import Student
from mangakd.tasks.classification.task import Classification
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import Cached
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import TeacherContext
from mangakd.training.fit import Fit, fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim

SIZES = {
    "model_type": "bert",
    "num_hidden_layers": 4,
    "hidden_size": 312,
    "num_attention_heads": 12,
    "intermediate_size": 1200,
}
VALIDATION = 64  # rows: fit() wants a validation split; it is met after the window, if at all


class Recorded(EncodedSplit):
    """Notes (texts, padded length) of each batch."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.shapes: list[tuple[int, int]] = []

    def collate(self, positions: list[int]) -> Batch:
        batch = super().collate(positions)
        self.shapes.append(tuple(batch["student"]["input_ids"].shape))
        return batch


@dataclass
class Parts:
    """What is made before the clock runs. folder: scratch for tokens, stores, checkpoints and logs."""

    folder: Path
    task: Classification
    train: Recorded
    validation: Recorded
    live: LocalTeacher
    student: Encoder
    hardware: Hardware = field(default_factory=lambda: Hardware(accelerator="cpu"))


def parts(data: Path, folder: Path, batch_size: int) -> Parts:
    """Data, teacher (random head, always the same one, so that a store serves every seed) and student."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = Classification()
    corpus = task.prepare(Clinc150(path=str(data), val_limit=VALIDATION).load())
    tokenizer = load.load_tokenizer(EMBEDDED)
    head = task.head(corpus, tokenizer)
    splits = []
    for rows in (corpus.train, corpus.validation):
        tokens = tokenise(rows["text"], tokenizer, MAX_LENGTH, folder / "tokens")
        sides = Sides(tokens, tokens, tokenizer.pad_token_id, tokenizer.pad_token_id)
        split = task.encode(rows, head, lambda _, own=sides: own)
        splits.append(Recorded(split.sides, split.columns, {"labels": split.units["labels"]}))
    model = load.read_model(load.outline_for(EMBEDDED, head, "teacher.path"), EMBEDDED, "teacher.path")
    teacher = load.encoder(model, head, "teacher", tokenizer)
    student = Student(sizes=dict(SIZES)).build(teacher, tokenizer, head)
    live = LocalTeacher(teacher, head)
    return Parts(folder, task, *splits, live, student, Hardware(accelerator="cpu", batch_size=batch_size))


def stored(setup: Parts) -> TeacherProvider:
    """The teacher's logits for the training texts, written on first use, read from disk."""
    context = TeacherContext(
        head=setup.live.spec.head,
        load=lambda member: setup.live.encoder,
        splits={"train": setup.train},
        cache=setup.folder,
        device=torch.device("cpu"),
        batch_size=setup.hardware.eval_batch_size,
        progress=lambda title, total: contextlib.nullcontext(lambda rows: None),
    )
    return Cached(path=EMBEDDED).provider(context)


def kd_losses(setup: Parts) -> LossSet:
    """The peers' loss: ALPHA · T² · KL + (1 − ALPHA) · cross-entropy."""
    losses = LossSet(
        {
            "hard_label": HardLabelLoss(weight=1 - ALPHA),
            "output": OutputLoss(weight=ALPHA, temperature=TEMPERATURE),
        }
    )
    losses.bind(setup.student.spec, setup.live.spec)
    return losses


def train(
    setup: Parts, student: Encoder, losses: LossSet, teacher: TeacherProvider | None, optim: Optim, clock: StepClock,
    seed: int,
) -> list[tuple[int, int]]:  # fmt: skip
    """`fit()` for as many steps as the clock wants. Returns (texts, padded length) of the batches inside the window."""
    batches = -(-len(setup.train) // setup.hardware.batch_size)
    if clock.last > batches:
        # Beyond an epoch there would be a validation inside the window, which the peers do not have.
        raise SystemExit(f"warmup + steps is {clock.last}, but an epoch has {batches} batches; give fewer")
    setup.train.shapes.clear()
    with tempfile.TemporaryDirectory(dir=setup.folder) as scratch:
        plan = Fit(
            "benchmark", Path(scratch), setup.task, setup.train, setup.validation, optim, setup.hardware, seed,
            trainer={"max_epochs": 1, "max_steps": clock.last}, loggers=[CSVLogger(scratch, "logs", "")],
        )  # fmt: skip
        with clock.watch_any(), contextlib.redirect_stdout(sys.stderr):  # stdout is for the JSON line
            fit(student, losses, teacher, plan)
    return setup.train.shapes[clock.warmup : clock.last]


@contextlib.contextmanager
def order_of_the_peers() -> Iterator[None]:
    """mangakd's loader with the batches that the peers' SeededOrder gives."""

    def order(sampler: BucketSampler) -> list[list[int]]:
        shared = SeededOrder(sampler.lengths, sampler.seed)  # type: ignore[arg-type]
        shared.epoch = sampler.epoch
        rows = list(shared)
        size = sampler.step.most(1)
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    with patch.object(BucketSampler, "order", order):
        yield


def run(settings: Settings, teacher: str, folder: Path) -> None:
    setup = parts(settings.data, folder, settings.batch_size)
    started = time.process_time()
    provider = setup.live if teacher == "live" else stored(setup)
    more = {"teacher": teacher, "store_s": round(time.process_time() - started, 1)} if teacher == "stored" else {}
    clock = StepClock(settings.warmup, settings.steps)
    optim = Optim(lr=LEARNING_RATE, warmup=0.0, schedule="constant", clip=None)
    with order_of_the_peers() if settings.padding == "dynamic" else contextlib.nullcontext():
        shapes = train(setup, setup.student, kd_losses(setup), provider, optim, clock, settings.seed)
    samples, lengths = sum(rows for rows, _ in shapes), [length for _, length in shapes]
    print_line(settings, clock, "mangakd", mangakd.__version__, samples, lengths, **more)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__.splitlines()[0], ("bucketed", "dynamic"))
    parser.add_argument("--teacher", choices=["live", "stored"], default="live")
    parser.add_argument("--cache", type=Path, help="keeps tokens and the store for the next run; default: thrown away")
    options = vars(parser.parse_args(arguments))
    teacher, cache = options.pop("teacher"), options.pop("cache")
    settings = Settings(**options)
    if settings.optimizer != "adamw_fused":
        parser.error("mangakd takes the fused AdamW; there is no other")
    with contextlib.ExitStack() as stack:
        run(settings, teacher, cache or Path(stack.enter_context(tempfile.TemporaryDirectory())))


if __name__ == "__main__":
    main()
