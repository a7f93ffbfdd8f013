"""A ranker trains alike on one process and on two, replicated or sharded: its losses are sums over queries.

Sequences of a query differ in length, so one process computes a batch in parts (models/by_length.py), and each rank in others. A
model of late interaction runs twice in a forward, for queries and for documents.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from mangakd.core.spec import Head
from mangakd.data.apart import Apart, Augmentation
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Sequences, Tokens
from mangakd.losses.list_net import ListNetLoss
from mangakd.losses.listwise_kl import ListwiseKLLoss
from mangakd.losses.margin_mse import MarginMSELoss
from mangakd.losses.score_mse import ScoreMSELoss
from mangakd.models import by_length
from mangakd.models.late import Late
from mangakd.tasks.rerank.encode import units
from mangakd.tasks.rerank.task import Rerank
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

pytestmark = pytest.mark.usefixtures("forked_ranks")
SCORE = Head("score", 1)
ONE = Hardware(accelerator="cpu", batch_size=8)
DDP = replace(ONE, devices=2, strategy="ddp", batch_size=4)
FSDP = replace(DDP, strategy="fsdp")


def groups(rows: int, seed: int, late: Late | None) -> EncodedSplit:
    """Queries of one to five documents, of 3 to 30 tokens."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, rows)
    lengths = rng.integers(3, 31, sizes.sum())
    ids = rng.integers(1, 50, lengths.sum()).astype(np.int32)
    tokens: Sequences = Tokens(ids, np.cumsum(lengths) - lengths, lengths, np.arange(len(lengths)) + seed * 10_000)
    if late is not None:
        queries = Tokens(ids, np.arange(rows), rng.integers(2, 7, rows), np.arange(rows))
        owners = np.repeat(np.arange(rows), sizes)
        tokens = Apart(queries, tokens, owners, np.arange(len(lengths)), Augmentation(0, 0, False, ()))
    grades = np.full((rows, 5), np.nan, dtype=np.float32)
    grades[np.arange(5) < sizes[:, None]] = rng.integers(0, 3, len(lengths))
    return EncodedSplit(
        Sides(tokens, tokens, 0, 0), {"grades": grades}, units(grades, sizes), np.concatenate([[0], np.cumsum(sizes)])
    )


def part(folder: Path, hardware: Hardware, late: Late | None) -> None:
    """One process's part of a fit; each rank would draw its own dropout, so there is none.

    score_mse is there for the head's bias: the others ignore a constant added to all scores, so its gradient would be rounding
    noise, which Adam blows up to whole steps.
    """
    torch.set_num_threads(1)
    teacher = tiny.encoder(1, 3, 24, dropout=0.0, head=SCORE, late=late)
    student = tiny.encoder(2, dropout=0.0, head=SCORE, late=late)
    losses = tiny.bound(
        student, teacher, listwise_kl=ListwiseKLLoss(temperature=2.0), list_net=ListNetLoss(weight=0.3),
        margin_mse=MarginMSELoss(weight=0.5), score_mse=ScoreMSELoss(weight=0.1),
    )  # fmt: skip
    plan = replace(
        tiny.plan(folder, hardware=hardware, epochs=2),
        task=Rerank(),
        train=groups(30, 1, late),
        validation=groups(10, 2, late),
    )
    fit(student, losses, LocalTeacher(teacher, SCORE), plan)


def weights(folder: Path, hardware: Hardware, late: Late | None) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    if hardware.world == 1:
        part(folder, hardware, late)
    else:
        launch.start(part, (folder, hardware, late), hardware, folder, no_user_error)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def no_user_error(error: BaseException) -> str | None:
    return None


@pytest.fixture(scope="module", params=[None, Late(dims=8)], ids=["cross", "late"])
def late(request: pytest.FixtureRequest) -> Late | None:
    return request.param


@pytest.fixture(scope="module")
def whole(late: Late | None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    assert by_length.parts(groups(30, 1, late).collate(range(8))["student"]), "a batch of one process has several parts"
    return weights(tmp_path_factory.mktemp("whole"), ONE, late)


@pytest.mark.parametrize("hardware", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_end_with_the_weights_of_one(
    hardware: Hardware, late: Late | None, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    ends = weights(tmp_path, hardware, late)
    for name, value in whole.items():
        torch.testing.assert_close(ends[name], value, rtol=0, atol=2e-6, msg=name)
