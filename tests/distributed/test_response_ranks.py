"""A language model trains and is scored alike on one process and on two, replicated or sharded, beside its live teacher."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from lightning.pytorch.loggers import CSVLogger
from tiny_language import VOCAB, encoder

from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Tokens
from mangakd.losses.tokens import TokensLoss
from mangakd.tasks.response.task import Response
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

pytestmark = pytest.mark.usefixtures("forked_ranks")
ONE = Hardware(accelerator="cpu", batch_size=8)
DDP = replace(ONE, devices=2, strategy="ddp", batch_size=2, accumulate=2)
FSDP = replace(DDP, strategy="fsdp")
Ends = tuple[dict[str, torch.Tensor], dict[str, float]]  # weights, scores


def texts(rows: int, seed: int) -> EncodedSplit:
    """Texts of 3 to 20 tokens, of which 1 to all but the first are targets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 21, rows)
    ids = rng.integers(3, VOCAB, lengths.sum()).astype(np.int32)
    counts = np.array([rng.integers(1, length) for length in lengths])
    targets = np.concatenate([np.arange(n) >= n - k for n, k in zip(lengths, counts, strict=True)]).astype(np.int32)
    starts = np.cumsum(lengths) - lengths
    tokens = Tokens(
        np.concatenate([ids, targets]), starts, lengths, np.arange(rows) + seed * 10_000, targets=starts + len(ids)
    )
    return EncodedSplit(Sides(tokens, tokens, 0, 0), {"tokens": counts}, {"targets": counts})


def part(folder: Path, hardware: Hardware) -> None:
    """One process's part of a fit."""
    torch.set_num_threads(1)
    teacher, student = encoder("llama", 1), encoder("llama", 2)
    losses = tiny.bound(student, teacher, tokens=TokensLoss(alpha=0.5))
    plan = tiny.plan(folder, hardware=hardware, epochs=2)
    plan = replace(
        plan,
        task=Response(),
        train=texts(30, 1),
        validation=texts(11, 2),
        loggers=[CSVLogger(folder, name="", version="")],
    )
    fit(student.train(), losses, LocalTeacher(teacher, teacher.spec.head), plan)


def ends(folder: Path, hardware: Hardware) -> Ends:
    folder.mkdir(exist_ok=True)
    if hardware.world == 1:
        part(folder, hardware)
    else:
        launch.start(part, (folder, hardware), hardware, folder, no_user_error)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"], scores_of(folder)


def scores_of(folder: Path) -> dict[str, float]:
    """Of the last validation."""
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/perplexity"]]
    return {name: float(value) for name, value in rows[-1].items() if name.startswith("val/")}


def no_user_error(error: BaseException) -> str | None:
    return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    return ends(tmp_path_factory.mktemp("whole"), ONE)


@pytest.mark.parametrize("hardware", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_end_as_one(hardware: Hardware, whole: Ends, tmp_path: Path) -> None:
    found = ends(tmp_path, hardware)
    assert {"val/perplexity", "val/kl", "val/agreement", "val/ece"} <= found[1].keys()
    compare(found, whole)


def test_two_processes_take_the_same_batches_of_tokens(tmp_path: Path) -> None:
    one = ends(tmp_path / "one", replace(ONE, tokens_per_batch=40, accumulate=4))
    compare(ends(tmp_path / "two", replace(DDP, tokens_per_batch=40)), one)


def compare(found: Ends, whole: Ends) -> None:
    assert found[1] == pytest.approx(whole[1], rel=1e-4)
    for name, value in whole[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=1e-5, msg=name)
