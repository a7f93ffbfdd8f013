"""The overhead of mangakd: a training step compared with the same step without the framework.

    python benchmarks/overhead.py --data PATH

1. live: `fit()`, which is what train.py runs (Lightning, callbacks, logging, data loader), against a plain PyTorch loop that
   is handed ready-made tensors. Both do the same steps: same weights at the start, same batches, same dropout, fused AdamW,
   gradients clipped at 1.0; that the weights are equal at the end is checked.
2. stored: `fit()` with soft targets read from a store against `fit()` with hard labels only: what distillation costs over
   plain fine-tuning once the teacher has spoken.

The two sides of a comparison take turns, round after round, so that a machine that slows down slows both. A ratio is of the
medians; CPU time of the process is the number to read, wall time is beside it. Student BERT 4 layers / 312, teacher
MiniLM-L6, CLINC150, batches of 64 texts of at most 64 tokens, one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import lightning
import torch
import torch.nn.functional as F
import transformers
from common import ALPHA, LEARNING_RATE, TEMPERATURE, Batch, StepClock
from mangakd_kd import Parts, kd_losses, parts, stored, train
from results_file import table, write
from torch import Tensor, nn

import mangakd
from mangakd.core.numbers import largest
from mangakd.data.loader import TrainLoader
from mangakd.data.steps import RowSteps
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.training.optim import Optim

OPTIM = Optim(lr=LEARNING_RATE, clip=1.0)
SEED = 0
TOLERANCE = 1e-5  # largest difference of a weight after a round: more would mean that the sides did different work

Times = dict[str, list[float]]  # "wall" and "cpu" seconds of a step, one entry a round
Side = Callable[[Encoder, StepClock], None]


def plain_loop(setup: Parts, batches: list[dict[str, Any]]) -> Side:
    """A hand-written training loop."""
    teacher = setup.live.encoder.model

    def side(encoder: Encoder, clock: StepClock) -> None:
        student = encoder.model.train()
        optimizer = torch.optim.AdamW(groups(student), lr=LEARNING_RATE, fused=True)
        clock.watch(optimizer)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: OPTIM.factor(step, clock.last))
        for step, batch in enumerate(batches):
            torch.default_generator.manual_seed(SEED * 1_000_003 + step)  # mangakd's dropout
            loss = kd_loss(student, teacher, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    return side


def groups(student: nn.Module) -> list[dict[str, Any]]:
    """Weight decay on matrices only."""
    matrices = [p for p in student.parameters() if p.dim() > 1]
    vectors = [p for p in student.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": OPTIM.weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def kd_loss(student: nn.Module, teacher: nn.Module, batch: dict[str, Any]) -> Tensor:
    inputs: Batch = batch["student"]
    with torch.no_grad():
        target = F.softmax(teacher(**inputs).logits / TEMPERATURE, dim=-1)
    logits = student(**inputs).logits
    soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, dim=-1), target, reduction="batchmean") * TEMPERATURE**2
    return ALPHA * soft + (1 - ALPHA) * F.cross_entropy(logits, batch["labels"])


def mangakd_fit(setup: Parts, losses: Callable[[], LossSet], teacher: Any) -> Side:
    def side(encoder: Encoder, clock: StepClock) -> None:
        train(setup, encoder, losses(), teacher, OPTIM, clock, SEED)

    return side


def hard_labels(setup: Parts) -> LossSet:
    losses = LossSet({"hard_label": HardLabelLoss()})
    losses.bind(setup.student.spec, None)
    return losses


def compare(setup: Parts, sides: dict[str, Side], options: argparse.Namespace, same_work: bool) -> dict[str, Times]:
    """Run rounds of all sides in turn. same_work: the sides must end with equal weights."""
    times: dict[str, Times] = {name: {"wall": [], "cpu": []} for name in sides}
    for number in range(options.rounds):
        ends = []
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            gc.collect()  # the trainer of the fit before holds its optimizer in a cycle
            encoder, clock = copy.deepcopy(setup.student), StepClock(options.warmup, options.steps)
            sides[name](encoder, clock)
            for kind, seconds in zip(("wall", "cpu"), clock.elapsed(), strict=True):
                times[name][kind].append(seconds / options.steps)
            ends.append(encoder)
        if same_work:
            check_equal(*ends)
        milliseconds = ", ".join(f"{name} {times[name]['cpu'][-1] * 1e3:.1f}" for name in sides)
        print(f"round {number + 1} of {options.rounds}: CPU ms a step: {milliseconds}", flush=True)
    return times


def check_equal(one: Encoder, other: Encoder) -> None:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    apart = largest(float((a - b).detach().abs().max()) for a, b in pairs)
    if not apart <= TOLERANCE:
        raise SystemExit(f"the two sides did not do the same work: a weight differs by {apart:.2g}")


def ratios(times: dict[str, Times]) -> dict[str, float]:
    """Ratios of medians: the first side over the second."""
    one, other = times.values()
    return {kind: round(statistics.median(one[kind]) / statistics.median(other[kind]), 4) for kind in ("cpu", "wall")}


def rows(times: dict[str, Times], target: float) -> list[list[str]]:
    ratio = ratios(times)
    (first, one), (second, other) = times.items()
    each = [a / b for a, b in zip(one["cpu"], other["cpu"], strict=True)]
    medians = [statistics.median(side["cpu"]) * 1e3 for side in (one, other)]
    return [[
        f"{first} / {second}", *(f"{ms:.1f}" for ms in medians), f"{ratio['cpu']:.3f}", f"{min(each):.3f}–{max(each):.3f}",
        f"{ratio['wall']:.3f}", f"{target}",
    ]]  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CLINC150 data_full.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="counted steps of a round")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--name", help="writes results/NAME.json and .md; without it, prints only")
    return parser.parse_args()


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        setup = parts(options.data, Path(folder), options.batch_size)
        with contextlib.redirect_stdout(sys.stderr):
            provider = stored(setup)
        live = compare(setup, live_sides(setup, options), options, same_work=True)
        soft = compare(setup, stored_sides(setup, provider), options, same_work=False)
    body = table(
        ("compared", "first: CPU ms a step", "second", "ratio of CPU time", "rounds", "ratio of wall time", "wanted ≤"),
        rows(live, 1.03) + rows(soft, 1.06),
    )
    print(body)
    if options.name:
        content = {
            "versions": versions(),
            "ratios": {"live": ratios(live), "stored": ratios(soft)},
            "seconds_a_step": {"live": live, "stored": soft},
        }
        print(write(options.name, "What a training step costs beside the arithmetic", content, f"{body}\n\n{NOTE}"))


NOTE = """`mangakd` is `fit()` with its callbacks and logging, `plain loop` a hand-written loop over ready-made tensors; their
weights are equal after each round. `stored soft targets` is hard labels and KL with the teacher's logits read from a store,
`hard labels` is the same `fit()` without a teacher."""


def versions() -> dict[str, str]:
    modules = {"mangakd": mangakd, "torch": torch, "lightning": lightning, "transformers": transformers}
    return {name: module.__version__ for name, module in modules.items()}


def live_sides(setup: Parts, options: argparse.Namespace) -> dict[str, Side]:
    batches = first_batches(setup, options)
    return {
        "mangakd": mangakd_fit(setup, lambda: kd_losses(setup), setup.live),
        "plain loop": plain_loop(setup, batches),
    }


def first_batches(setup: Parts, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The first batches of `fit()`."""
    loader = iter(TrainLoader(setup.train, RowSteps(options.batch_size), SEED))
    return [dict(next(loader)) for _ in range(options.warmup + options.steps)]


def stored_sides(setup: Parts, provider: Any) -> dict[str, Side]:
    return {
        "stored soft targets": mangakd_fit(setup, lambda: kd_losses(setup), provider),
        "hard labels": mangakd_fit(setup, lambda: hard_labels(setup), None),
    }


if __name__ == "__main__":
    main()
