"""An embedding model trains alike on one process and on two, replicated or sharded, with losses that are sums over texts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Tokens
from mangakd.losses.hard_label import IGNORE
from mangakd.losses.pair_score import PairScoreLoss
from mangakd.losses.vector import VectorLoss
from mangakd.tasks.embedding.task import Embedding
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

pytestmark = pytest.mark.usefixtures("forked_ranks")
ONE = Hardware(accelerator="cpu", batch_size=8)
DDP = replace(ONE, devices=2, strategy="ddp", batch_size=4)
FSDP = replace(DDP, strategy="fsdp")


def pairs(rows: int, seed: int) -> EncodedSplit:
    """Pairs of texts with a score; every fourth row has none, so that the ranks count different numbers of them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 31, 2 * rows)
    ids = rng.integers(1, 50, lengths.sum()).astype(np.int32)
    tokens = Tokens(ids, np.cumsum(lengths) - lengths, lengths, np.arange(2 * rows) + seed * 10_000)
    score = rng.random(rows).astype(np.float32)
    score[::4] = np.nan
    columns = {
        "labels": np.full(rows, IGNORE, dtype=np.int64), "score": score,
        "anchor_key": tokens.keys[::2], "positive_key": tokens.keys[1::2],
    }  # fmt: skip
    units = {"labels": np.isfinite(score).astype(np.int64)}
    return EncodedSplit(Sides(tokens, tokens, 0, 0), columns, units, np.arange(0, 2 * rows + 1, 2))


def part(folder: Path, hardware: Hardware) -> None:
    """One process's part of a fit; each rank would draw its own dropout, so there is none. The teacher is wider."""
    torch.set_num_threads(1)
    teacher = tiny.encoder(1, 3, 24, dropout=0.0, head=Head("vector", 24))
    student = tiny.encoder(2, dropout=0.0, head=Head("vector", 16))
    losses = tiny.bound(student, teacher, vector=VectorLoss(compare="mse"), pair_score=PairScoreLoss(weight=0.5))
    plan = tiny.plan(folder, hardware=hardware, epochs=2)
    plan = replace(plan, task=Embedding(), train=pairs(30, 1), validation=pairs(10, 2))
    fit(student, losses, LocalTeacher(teacher, Head("vector", 24)), plan)


def weights(folder: Path, hardware: Hardware) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    if hardware.world == 1:
        part(folder, hardware)
    else:
        launch.start(part, (folder, hardware), hardware, folder, no_user_error)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def no_user_error(error: BaseException) -> str | None:
    return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return weights(tmp_path_factory.mktemp("whole"), ONE)


@pytest.mark.parametrize("hardware", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_end_with_the_weights_of_one(
    hardware: Hardware, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    ends = weights(tmp_path, hardware)
    assert any("vector" in name for name in whole), "the map to the teacher's width learns, too"
    for name, value in whole.items():
        torch.testing.assert_close(ends[name], value, rtol=0, atol=2e-6, msg=name)
