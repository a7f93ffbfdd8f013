"""One fit: it learns, is repeatable, survives an interruption bit for bit, stops on NaN, and keeps the teacher out."""

import csv
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossOutput
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.models.encoder import Encoder
from mangakd.teachers.local import LocalTeacher
from mangakd.training.callbacks.save_last import Interrupted, SaveEvery, SaveLast
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware
from mangakd.training.loggers import KeptCsv
from mangakd.training.validation import Validation


class SignalAt(HardLabelLoss):
    """Hard labels; sends this process a signal at one step, as Ctrl-C does."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        super().__init__(weight=0.3)
        self._left, self._number = step, number

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)
        return super().forward(student, teacher, batch)


class NanAt(SignalAt):
    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self._left -= 1
        output = HardLabelLoss.forward(self, student, teacher, batch)
        return LossOutput(output.sum * float("nan"), output.count) if self._left == 0 else output


def world(hard: HardLabelLoss) -> tuple[Encoder, LossSet, LocalTeacher]:
    """Teacher and student of different sizes with every kind of tap, projections included."""
    teacher, student = tiny.encoder(1, layers=3, hidden=24), tiny.encoder(2)
    losses = tiny.bound(
        student, teacher, hard_label=hard, output=OutputLoss(weight=0.7), hidden=HiddenLoss(weight=0.1),
        attention=AttentionLoss(weight=0.1),
    )  # fmt: skip
    return student, losses, LocalTeacher(teacher, tiny.HEAD)


def finish(folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    """Weights of student and projections after a whole run, from its last checkpoint."""
    student, losses, teacher = world(HardLabelLoss(weight=0.3))
    fit(student, losses, teacher, tiny.plan(folder, **changes))
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Seen(HardLabelLoss):
    """Hard labels; remembers which rows each step was given."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[int] = []

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self.keys += batch["key"].tolist()
        return super().forward(student, teacher, batch)


def test_every_row_is_seen_once_an_epoch(tmp_path: Path) -> None:
    student, seen = tiny.encoder(2), Seen()
    fit(student, tiny.bound(student, None, hard_label=seen), None, tiny.plan(tmp_path))
    epochs = [seen.keys[i : i + 100] for i in range(0, len(seen.keys), 100)]
    assert len(epochs) == 3
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 100 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return finish(tmp_path_factory.mktemp("whole"))


def test_two_runs_are_equal(whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert equal(whole, finish(tmp_path))


# 13 steps an epoch: in the middle, the last step of an epoch, the first of the next, the very last.
@pytest.mark.parametrize("step", [5, 13, 14, 39])
@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_and_resumed_equals_uninterrupted(
    whole: dict[str, torch.Tensor], tmp_path: Path, step: int, workers: int
) -> None:
    student, losses, teacher = world(SignalAt(step))
    with pytest.raises(Interrupted) as stop:
        fit(student, losses, teacher, tiny.plan(tmp_path, workers=workers))
    assert stop.value.checkpoint.is_file()
    assert equal(whole, finish(tmp_path, resume=stop.value.checkpoint, workers=workers))


def test_steps_of_tokens_resume_with_the_same_bits(tmp_path: Path) -> None:
    """Stopped in the middle of the second of three epochs."""
    hardware = Hardware(accelerator="cpu", tokens_per_batch=60, accumulate=2)
    student, losses, teacher = world(SignalAt(17))
    with pytest.raises(Interrupted) as stop:
        fit(student, losses, teacher, tiny.plan(tmp_path / "cut", hardware=hardware))
    cut = stop.value.checkpoint
    steps = hardware.step.count(tiny.split(100, 1).student.lengths)
    assert steps < torch.load(cut, weights_only=False)["global_step"] < 2 * steps
    found = finish(tmp_path / "cut", hardware=hardware, resume=cut)
    assert equal(finish(tmp_path / "whole", hardware=hardware), found)
    assert torch.load(cut, weights_only=False)["global_step"] == 3 * steps


def test_a_row_that_no_batch_of_tokens_holds_is_refused(tmp_path: Path) -> None:
    student, losses, teacher = world(HardLabelLoss())
    plan = tiny.plan(tmp_path, hardware=Hardware(accelerator="cpu", tokens_per_batch=10))
    with pytest.raises(UserError, match=r"takes up to 11 tokens.*tokens_per_batch=10.*tokens_per_batch=11 or more"):
        fit(student, losses, teacher, plan)


def test_sigterm_leaves_a_checkpoint(tmp_path: Path) -> None:
    student, losses, teacher = world(SignalAt(4, signal.SIGTERM))
    with pytest.raises(Interrupted):
        fit(student, losses, teacher, tiny.plan(tmp_path))
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)["global_step"] == 4


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    callback = SaveLast(tmp_path, SaveEvery(), 1, False, loader=None)  # type: ignore[arg-type]
    callback._note(signal.SIGINT, None)
    with pytest.raises(SystemExit) as left:
        callback._note(signal.SIGINT, None)
    assert left.value.code == 130


def test_the_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    finish(tmp_path, epochs=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_nan_names_the_term_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    student, losses, teacher = world(NanAt(20))
    with pytest.raises(UserError, match=r"loss term hard_label is not finite.*step 19"):
        fit(student, losses, teacher, tiny.plan(tmp_path))
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert kept["global_step"] == 13
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


def test_the_teacher_is_in_no_checkpoint_and_unchanged(tmp_path: Path) -> None:
    student, losses, teacher = world(HardLabelLoss(weight=0.3))
    before = teacher.fingerprint
    result = fit(student, losses, teacher, tiny.plan(tmp_path))
    for file in ("best.ckpt", "last.ckpt"):
        saved = torch.load(tmp_path / "checkpoints" / file, weights_only=False)
        assert {name.split(".")[0] for name in saved["state_dict"]} == {"student", "losses"}
        assert "teacher" not in " ".join(saved)
    assert LocalTeacher(teacher.encoder, tiny.HEAD).fingerprint == before
    assert result.steps == 39
    groups = [group["name"] for group in saved["optimizer_states"][0]["param_groups"]]
    assert groups == ["student", "student.no_decay", "losses.hidden", "losses.hidden.no_decay"]


def test_resuming_with_other_losses_is_refused(tmp_path: Path) -> None:
    finish(tmp_path, epochs=1)
    student = tiny.encoder(2)
    losses = tiny.bound(student, None, hard_label=HardLabelLoss())
    with pytest.raises(UserError, match=r"losses\.hidden.*the losses differ"):
        fit(student, losses, None, tiny.plan(tmp_path, resume=tmp_path / "checkpoints" / "last.ckpt"))


def test_projections_are_trained(whole: dict[str, torch.Tensor]) -> None:
    _, losses, _ = world(HardLabelLoss(weight=0.3))
    fresh = {f"losses.{name}": value for name, value in losses.state_dict().items()}
    assert fresh
    assert all(not torch.equal(whole[name], value) for name, value in fresh.items())


def test_the_best_epoch_comes_back(tmp_path: Path) -> None:
    student, losses, teacher = world(HardLabelLoss(weight=0.3))
    fit(student, losses, teacher, tiny.plan(tmp_path))
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)["state_dict"]
    assert all(torch.equal(best[f"student.{name}"], value) for name, value in student.state_dict().items())


def test_a_fit_that_validates_nothing_has_no_score(tmp_path: Path) -> None:
    """0.0 would be the best score of all where lower is better."""
    student, losses, teacher = world(HardLabelLoss(weight=0.3))
    plan = tiny.plan(tmp_path)
    assert math.isnan(fit(student, losses, teacher, replace(plan, trainer={"fast_dev_run": True})).score)


def test_of_equal_epochs_the_later_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.75, 0.75, 0.25])
    monkeypatch.setattr(Validation, "scores", lambda _: {"accuracy": next(scores)})
    student, losses, teacher = world(HardLabelLoss(weight=0.3))
    result = fit(student, losses, teacher, tiny.plan(tmp_path, epochs=4))
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)
    assert best["epoch"] == 2 and result.score == 0.75


def curve(folder: Path) -> list[tuple[str, ...]]:
    rows = csv.DictReader((folder / "metrics.csv").open())
    return [tuple((name, value) for name, value in row.items() if value) for row in rows]


@pytest.mark.parametrize("step", [5, 13, 14])
def test_a_resumed_run_goes_on_with_its_curve(tmp_path: Path, step: int) -> None:
    def go(folder: Path, hard: HardLabelLoss, resume: Path | None = None) -> None:
        student, losses, teacher = world(hard)
        logger = KeptCsv(save_dir=folder, name="", version="")
        fit(student, losses, teacher, replace(tiny.plan(folder, epochs=2, resume=resume), loggers=[logger]))

    go(tmp_path / "whole", HardLabelLoss(weight=0.3))
    with pytest.raises(Interrupted) as stop:
        go(tmp_path / "stopped", SignalAt(step))
    # As if two more steps had been logged before it was killed: they are taken again, and must not be there twice.
    with (tmp_path / "stopped" / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    with (tmp_path / "stopped" / "metrics.csv").open("a") as file:
        csv.DictWriter(file, list(last)).writerows({**last, "step": step + i} for i in (0, 1))
    go(tmp_path / "stopped", HardLabelLoss(weight=0.3), stop.value.checkpoint)
    whole = curve(tmp_path / "whole")
    if step != 13:  # within an epoch, the stop comes before Lightning hands the step's own row over
        whole = [row for row in whole if ("step", str(step - 1)) not in row]
    assert curve(tmp_path / "stopped") == whole


@pytest.mark.parametrize(("keep", "score"), [("best", 0.8), ("last", 0.5)])
def test_the_score_is_that_of_the_epoch_that_is_kept(
    tmp_path: Path, keep: str, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_epochs = iter((0.6, 0.8, 0.5))
    monkeypatch.setattr(Validation, "scores", lambda self: (self._start(), {"accuracy": next(of_epochs)})[1])
    student, losses, teacher = world(HardLabelLoss(weight=0.3))
    plan = replace(tiny.plan(tmp_path), keep=keep)
    assert fit(student, losses, teacher, plan).score == score
    again = replace(plan, resume=tmp_path / "checkpoints" / "last.ckpt")  # all epochs are over: no validation
    assert fit(*world(HardLabelLoss(weight=0.3)), again).score == score
