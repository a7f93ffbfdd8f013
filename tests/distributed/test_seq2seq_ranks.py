"""An encoder–decoder trains and is scored alike on one process and on two, and a fit that is killed ends with the same bits."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch.loggers import CSVLogger
from test_response_ranks import DDP, FSDP, ONE, no_user_error, scores_of, texts
from tiny_seq2seq import encoder

from mangakd.core.outputs import Batch, Outputs
from mangakd.losses.base import LossOutput
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.tokens import TokensLoss
from mangakd.models import seq2seq
from mangakd.tasks.response.task import Response
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.callbacks.save_last import SaveEvery
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

pytestmark = pytest.mark.usefixtures("forked_ranks")
Weights = dict[str, torch.Tensor]


def train(
    folder: Path, hardware: Hardware, kind: str, tokens: TokensLoss, dropout: float = 0.0, **changes: Any
) -> None:
    """A fit whose losses read the tokens and hidden states of both stacks. Sources and targets differ in length."""
    torch.set_num_threads(1)
    drops = {"dropout_rate": dropout} if "t5" in kind else {"dropout": dropout}
    teacher, student = encoder(kind, 1), encoder(kind, 2, **drops)
    losses = tiny.bound(student, teacher, tokens=tokens, hidden=HiddenLoss(projection=True))
    plan = replace(
        tiny.plan(folder, hardware=hardware, epochs=2),
        task=Response(),
        train=texts(30, 1),
        validation=texts(11, 2),
        loggers=[CSVLogger(folder, name="", version="")],
        **changes,
    )
    fit(student.train(), losses, LocalTeacher(teacher, teacher.spec.head), plan)
    assert seq2seq.is_tied(student.model) == ("untied" not in kind)


def part(folder: Path, hardware: Hardware, kind: str) -> None:
    train(folder, hardware, kind, TokensLoss(alpha=0.5))


def weights(folder: Path) -> Weights:
    saved: Weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    return saved


def ends(folder: Path, hardware: Hardware, kind: str) -> tuple[Weights, dict[str, float]]:
    folder.mkdir(exist_ok=True)
    if hardware.world == 1:
        part(folder, hardware, kind)
    else:
        launch.start(part, (folder, hardware, kind), hardware, folder, no_user_error)
    return weights(folder), scores_of(folder)


@pytest.mark.parametrize(
    ("hardware", "kind"),
    [(DDP, "t5 untied"), (DDP, "bart"), (FSDP, "t5 untied")],
    ids=["ddp t5", "ddp bart", "fsdp t5"],
)
def test_two_processes_end_as_one(hardware: Hardware, kind: str, tmp_path: Path) -> None:
    whole, scores = ends(tmp_path / "one", ONE, kind)
    trained, others = ends(tmp_path / "two", hardware, kind)
    assert {"val/perplexity", "val/kl", "val/agreement", "val/ece"} <= scores.keys()
    assert others == pytest.approx(scores, rel=1e-4)
    for name, value in whole.items():
        if name.endswith("k_proj.bias"):
            continue  # its gradient is 0 but for rounding, which AdamW divides by its own size
        torch.testing.assert_close(trained[name], value, rtol=0, atol=2e-5, msg=name)
    tables = [trained[f"student.model.{name}.weight"] for name in ("shared", "lm_head")] if kind != "bart" else []
    assert not tables or not torch.equal(*tables)


class Killed(TokensLoss):
    """Kills its process at a step, as the kernel does when memory runs out."""

    def __init__(self, step: int, **options: Any) -> None:
        super().__init__(**options)
        self._left = step

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(student, teacher, batch)


@pytest.mark.parametrize("kind", ["t5 untied", "bart untied"])
def test_a_killed_fit_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    """With dropout, so that the random state counts, too."""
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    train(tmp_path / "whole", ONE, kind, TokensLoss(alpha=0.5), 0.1, save_every=SaveEvery(1))
    killed = multiprocessing.get_context("fork").Process(
        target=train,
        args=(tmp_path / "cut", ONE, kind, Killed(6, alpha=0.5), 0.1),
        kwargs={"save_every": SaveEvery(1)},
    )
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=False)["global_step"] == 5
    train(tmp_path / "cut", ONE, kind, TokensLoss(alpha=0.5), 0.1, save_every=SaveEvery(1), resume=last)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[name], each) for name, each in whole.items())
