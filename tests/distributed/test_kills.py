"""A run that is killed and resumed is the run that nobody killed: real processes, by benchmarks/kills.py, and an epoch's end."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from conftest import REPO

from mangakd.core.outputs import Batch, Outputs
from mangakd.losses.base import LossOutput
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.training.fit import fit
from mangakd.training.optim import Optim

sys.path.insert(0, str(REPO / "benchmarks"))

import kills
import kills_start
from kills_check import wrong_rows
from warm import Command


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows that both configurations share, and the teacher that the first one fine-tunes."""
    return tmp_path_factory.mktemp("kills")


@pytest.mark.parametrize(
    ("name", "blow"),
    [("1 process, 2 workers, live", "process tree"), ("2 processes (ddp), 0 workers, stored", "slow ranks")],
)
def test_a_killed_run_ends_with_the_same_bits_and_rows(
    world: Path, name: str, blow: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Runs are forked off a process that has imported: new interpreters would import for a minute of CPU time.
    forked = SimpleNamespace(Popen=command.popen, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(kills_start, "subprocess", forked)
    configuration = next(one for one in kills.configurations() if one.name == name)
    result = kills.measure(replace(configuration, victims=(blow,), more=()), world, kills=1, epochs=2, seed=0)
    assert result.good, result
    assert [blow.what for blow in result.blows] == [blow]
    assert 0 <= result.blows[0].again <= kills.EVERY + 1


ONE_STEP = {0: [1, 2], 1: [3]}  # rank → rows


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({0: ONE_STEP}, "steps [1] were not done by both runs"),
        ({0: ONE_STEP, 1: {0: [1], 1: [3]}}, "epoch 1: 0 rows twice, 1 not at all"),
        ({0: ONE_STEP, 1: {0: [1, 2], 1: [3, 2]}}, "epoch 1: 1 rows twice, 0 not at all"),
        ({0: ONE_STEP, 1: {0: [2, 1], 1: [3]}}, "steps [1] had other rows than in the uninterrupted run"),
    ],
)
def test_the_judge_of_rows_sees(steps: dict[int, dict[int, list[int]]], words: str) -> None:
    reference = {0: ONE_STEP, 1: ONE_STEP}
    assert not list(wrong_rows(reference, reference, epochs=2))
    assert words in list(wrong_rows(reference, steps, epochs=2))


class Dies(HardLabelLoss):
    """Hard labels, until a step that it does not survive."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("killed")
        return super().forward(student, teacher, batch)


def weights(folder: Path, loss: HardLabelLoss, resume: Path | None = None) -> list[dict[str, torch.Tensor]]:
    """Of the last and the best checkpoint of a run over three epochs of 13 steps, of which the first stays the best."""
    student = tiny.encoder(2)
    plan = tiny.plan(folder, resume=resume, optim=Optim(lr=1e-6))  # so small that no epoch scores better than the first
    fit(student, tiny.bound(student, None, hard_label=loss), None, plan)
    files = [folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
    return [torch.load(file, weights_only=False)["state_dict"] for file in files]


def test_a_checkpoint_of_an_epochs_end_knows_the_next_rows_and_the_best_epoch(tmp_path: Path) -> None:
    whole = weights(tmp_path / "whole", HardLabelLoss())
    with pytest.raises(RuntimeError, match="killed"):
        weights(tmp_path / "killed", Dies(16))
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=False)["global_step"] == 13
    for ours, theirs in zip(weights(tmp_path / "killed", HardLabelLoss(), last), whole, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_fit_that_ran_out_of_patience_stays_ended(tmp_path: Path) -> None:
    steps = []
    for resume in (None, tmp_path / "checkpoints" / "last.ckpt"):  # as when a later stage of the run was killed
        student, plan = tiny.encoder(2), tiny.plan(tmp_path, resume=resume, optim=Optim(lr=1e-6))
        steps.append(
            fit(student, tiny.bound(student, None, hard_label=HardLabelLoss()), None, replace(plan, patience=1)).steps
        )
    assert steps == [26, 26]  # of 39
