"""Losses that compare rows compare those of all ranks: terms and weights are those of one process."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from lightning.pytorch.loggers import CSVLogger

from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Tokens
from mangakd.losses.contrastive import ContrastiveLoss
from mangakd.losses.hard_label import IGNORE
from mangakd.losses.similarity import SimilarityLoss
from mangakd.losses.vector import VectorLoss
from mangakd.tasks.embedding.loss import LabelsLoss
from mangakd.tasks.embedding.task import Embedding
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim

pytestmark = pytest.mark.usefixtures("forked_ranks")
ONE = Hardware(accelerator="cpu", batch_size=8)
DDP = replace(ONE, devices=2, strategy="ddp", batch_size=4)
WAYS = {
    "ddp": (DDP, ONE),
    "fsdp": (replace(DDP, strategy="fsdp"), ONE),
    "micro-batches": (replace(DDP, accumulate=2), replace(ONE, accumulate=2)),
}


def pairs(rows: int, seed: int) -> EncodedSplit:
    """Anchors with a positive and up to two negatives, or every fourth with a score; some texts occur in several rows."""
    rng = np.random.default_rng(seed)
    first = np.concatenate([[0], np.cumsum(rng.integers(2, 5, rows))])
    lengths = rng.integers(3, 31, first[-1])
    ids = rng.integers(1, 50, lengths.sum()).astype(np.int32)
    keys = np.arange(first[-1]) + seed * 10_000
    keys[::9] = keys[0]
    tokens = Tokens(ids, np.cumsum(lengths) - lengths, lengths, keys)
    scored = np.arange(rows) % 4 == 0
    columns = {
        "labels": np.where(scored, IGNORE, 1),
        "score": np.where(scored, rng.random(rows), np.nan).astype(np.float32),
        "anchor_key": keys[first[:-1]], "positive_key": keys[first[:-1] + 1],
    }  # fmt: skip
    return EncodedSplit(Sides(tokens, tokens, 0, 0), columns, {"labels": np.ones(rows, dtype=np.int64)}, first)


def part(folder: Path, hardware: Hardware) -> None:
    """One process's part of a fit of 33 rows: a step of one row leaves the second rank none.

    `vector` is a sum over texts: beside it Adam does not hide a comparison whose gradient is a multiple of the right one.
    """
    torch.set_num_threads(1)
    teacher = tiny.encoder(1, 3, 24, dropout=0.0, head=Head("vector", 24))
    student = tiny.encoder(2, dropout=0.0, head=Head("vector", 16))
    losses = tiny.bound(
        student, teacher, vector=VectorLoss(compare="mse"), similarity=SimilarityLoss(dims=[16, 8]),
        contrastive=ContrastiveLoss(weight=0.5, soft=0.5, dims=[16, 4]), own=LabelsLoss(weight=0.5, dims=[8]),
    )  # fmt: skip
    plan = replace(
        tiny.plan(folder, hardware=hardware, epochs=2, optim=Optim(lr=1e-3, gradient_norms=1)),
        task=Embedding(), train=pairs(33, 1), validation=pairs(10, 2), loggers=[CSVLogger(folder, name="", version="")],
    )  # fmt: skip
    fit(student, losses, LocalTeacher(teacher, Head("vector", 24)), plan)


def run(folder: Path, hardware: Hardware) -> tuple[dict[str, torch.Tensor], dict[str, list[float]]]:
    """(weights, each step's value of every term and of the norm of its gradient)."""
    folder.mkdir(exist_ok=True)
    if hardware.world == 1:
        part(folder, hardware)
    else:
        launch.start(part, (folder, hardware), hardware, folder, no_user_error)
    lines = [*csv.DictReader((folder / "metrics.csv").open())]
    names = [name for name in lines[0] if name.startswith(("train/loss", "train/gradient_norm"))]
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    return weights, {name: [float(line[name]) for line in lines if line[name]] for name in names}


def no_user_error(error: BaseException) -> str | None:
    return None


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_take_the_steps_of_one(way: str, tmp_path: Path) -> None:
    two, one = (run(tmp_path / str(hardware.world), hardware) for hardware in WAYS[way])
    assert {len(values) for values in one[1].values()} == {2 * (3 if way == "micro-batches" else 5)}
    assert len(two[1]) == (5 if way == "fsdp" else 9), "with FSDP there are no norms"
    for name, values in two[1].items():
        assert values == pytest.approx(one[1][name], rel=1e-5, abs=1e-6), name
    for name, value in one[0].items():
        torch.testing.assert_close(two[0][name], value, rtol=0, atol=2e-6, msg=name)
