"""The same optimizer steps on one process and on several: losses of every step and final weights, side by side.

    python benchmarks/parity.py

A student is distilled with hard labels, soft targets, hidden states (projections included) and attention, over rows that do
not divide evenly, so that the last step of an epoch is short on every rank. Step rows are the same everywhere: on one process,
with accumulation, on two with DDP and with FSDP2. Dropout is off, as ranks draw their own. What remains is fp32 rounding in
another order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from results_file import table, write
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification, BertConfig

from mangakd.core import ranks
from mangakd.core.numbers import largest
from mangakd.core.spec import Head, ModelSpec
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Tokens
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.models.encoder import Encoder
from mangakd.models.heads import entries
from mangakd.tasks.classification.encode import labelled
from mangakd.tasks.classification.task import Classification
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.fit import Fit, fit
from mangakd.training.hardware import Hardware
from mangakd.training.module import DistillModule
from mangakd.training.optim import Optim

LABELS = ("a", "b", "c", "d")
HEAD = Head.of_labels(LABELS)
ROWS, STEP_ROWS, EPOCHS, SEED = 111, 16, 3, 3  # the last step of an epoch has 15 rows
ONE = Hardware(accelerator="cpu", batch_size=STEP_ROWS)
WAYS = {
    "1 process": ONE,
    "1 process, 2 micro-batches": replace(ONE, batch_size=8, accumulate=2),
    "2 processes, DDP": replace(ONE, devices=2, strategy="ddp", batch_size=8),
    "2 processes, DDP, 2 micro-batches": replace(ONE, devices=2, strategy="ddp", batch_size=4, accumulate=2),
    "2 processes, FSDP2": replace(ONE, devices=2, strategy="fsdp", batch_size=8),
    "2 processes, FSDP2, 2 micro-batches": replace(ONE, devices=2, strategy="fsdp", batch_size=4, accumulate=2),
}
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-5, 1e-5


def encoder(seed: int, layers: int, hidden: int) -> Encoder:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=200, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=2 * hidden, max_position_embeddings=32, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.3,  # large enough for losses that are not nearly zero
    )  # fmt: skip
    config.update(entries(HEAD))
    return Encoder(
        AutoModelForSequenceClassification.from_config(config), ModelSpec.from_config(config, "toy", HEAD, "v")
    )


def split(rows: int, seed: int, unlabelled: float = 0.0) -> EncodedSplit:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 20, rows)
    ids = rng.integers(1, 200, lengths.sum()).astype(np.int32)
    tokens = Tokens(ids, np.cumsum(lengths) - lengths, lengths, np.arange(rows) + 10_000 * seed)
    labels = rng.integers(0, len(LABELS), rows)
    labels[rng.random(rows) < unlabelled] = -100
    return labelled(Sides(tokens, tokens, 0, 0), labels)


class Curve(Logger):
    """Losses of every step."""

    name, version = "curve", 0

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, float]] = []

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        losses = {name: value for name, value in metrics.items() if name.startswith("train/loss")}
        self.steps += [losses] if losses else []

    def log_hyperparams(self, *_: Any) -> None: ...


def run(way: str, folder: Path) -> None:
    """Run one rank. Writes the curve, and whether all ranks ended with equal parameters, to `folder`."""
    torch.set_num_threads(1)
    teacher, student = encoder(1, 3, 48), encoder(2, 2, 32)
    losses = LossSet(
        {"hard_label": HardLabelLoss(weight=0.3), "output": OutputLoss(weight=0.7, temperature=2.0),
         "hidden": HiddenLoss(weight=0.5), "attention": AttentionLoss(weight=0.1)}
    )  # fmt: skip
    torch.manual_seed(5)
    losses.bind(student.spec, teacher.spec)
    curve, digests = Curve(), []
    setup = Fit(
        # With unlabelled rows the hard term counts fewer rows than the soft one.
        way, folder, Classification(), split(ROWS, 1, unlabelled=0.2), split(31, 2), Optim(lr=1e-3), WAYS[way], SEED,
        trainer={"max_epochs": EPOCHS, "log_every_n_steps": 1}, loggers=[curve],
    )  # fmt: skip

    def compare(module: DistillModule) -> None:
        parts = [p.full_tensor() if isinstance(p, DTensor) else p for p in module.parameters()]
        digests.append(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in parts)).hexdigest())

    with patch.object(DistillModule, "on_train_end", compare):
        fit(student, losses, LocalTeacher(teacher, HEAD), setup)
    if ranks.world() > 1:
        all_digests: list[Any] = [None] * ranks.world()
        dist.all_gather_object(all_digests, digests[0])
        digests = all_digests
    if ranks.is_first():
        (folder / "curve.json").write_text(json.dumps({"steps": curve.steps, "equal_ranks": len(set(digests)) == 1}))


def no_user_error(error: BaseException) -> str | None:
    return None


def measure(way: str, folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(curve, final weights) of one way to run."""
    folder.mkdir()
    if WAYS[way].world == 1:
        run(way, folder)
    else:
        launch.start(run, (way, folder), WAYS[way], folder, no_user_error)
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)
    return json.loads((folder / "curve.json").read_text()), checkpoint["state_dict"]


def compare_runs(way: str, result: Any, reference: Any) -> dict[str, Any]:
    """Largest relative difference of a loss, and absolute differences of weights, to the reference."""
    (curve, weights), (base, base_weights) = result, reference
    pairs = [(step[k], first[k]) for step, first in zip(curve["steps"], base["steps"], strict=True) for k in first]
    apart = {name: float((weights[name] - value).abs().max()) for name, value in base_weights.items()}
    return {
        "way": way,
        "steps": len(curve["steps"]),
        "loss": largest(abs(a - b) / max(abs(b), 1e-6) for a, b in pairs),
        "weights": largest(apart.values()),
        "projections": largest(value for name, value in apart.items() if name.startswith("losses.")),
        "equal_ranks": curve["equal_ranks"],
    }


def all_ways(folder: Path) -> list[dict[str, Any]]:
    results = {way: measure(way, folder / str(i)) for i, way in enumerate(WAYS)}
    return [compare_runs(way, results[way], results["1 process"]) for way in WAYS]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lines = all_ways(Path(scratch))
    columns = ("steps", "loss", "weights", "projections")
    rows = [[line["way"], *(f"{line[c]:.3g}" for c in columns), str(line["equal_ranks"]).lower()] for line in lines]
    header = ("way", "steps", "losses, max relative Δ", "weights, max Δ", "of these projections", "ranks equal")
    body = table(header, rows)
    print(body)
    note = f"""Largest difference to one process, over {lines[0]["steps"]} steps of {STEP_ROWS} rows (the last of an epoch has
{ROWS % STEP_ROWS}), a fifth of them unlabelled, learning rate 1e-3. fp32; losses agree within {LOSS_TOLERANCE:g} and weights
within {WEIGHT_TOLERANCE:g} or this program fails."""
    versions = {"torch": torch.__version__, "lightning": lightning.__version__}
    content = {"versions": versions, "lines": lines}
    print(write("parity", "The same steps on one process and on two", content, f"{body}\n\n{note}"))
    wrong = [
        each["way"] for each in lines if not (each["loss"] <= LOSS_TOLERANCE and each["weights"] <= WEIGHT_TOLERANCE)
    ]
    if wrong or not all(line["equal_ranks"] for line in lines):
        raise SystemExit(f"not equal: {', '.join(wrong) or 'parameters of the ranks'}")


if __name__ == "__main__":
    main()
