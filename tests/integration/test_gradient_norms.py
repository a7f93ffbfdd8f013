"""`optim.gradient_norms`: each term's own gradient over a whole step, seen by the report, and without a trace in the weights."""

import csv
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import tiny
import torch

from mangakd.evaluation.report import curves
from mangakd.evaluation.report.blocks import Figure
from mangakd.losses.gradient_norms import GradientNorms
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.output import OutputLoss
from mangakd.tasks.classification.judge import ClassificationJudge
from mangakd.teachers.local import LocalTeacher
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware
from mangakd.training.loggers import KeptCsv
from mangakd.training.module import DistillModule
from mangakd.training.optim import Optim
from mangakd.training.run_module import RunModule, Step
from mangakd.training.validation import Validation

WEIGHTS = {"hard_label": 0.3, "output": 0.7, "hidden": 0.1}
MEASURED = Optim(lr=1e-3, gradient_norms=1)


def train(
    folder: Path, weights: dict[str, float] = WEIGHTS, dropout: float = 0.0, every: int = 1, **changes: Any
) -> Path:
    """A whole run; returns its folder, which holds logs/metrics.csv."""
    teacher, student = tiny.encoder(1, layers=3, hidden=24), tiny.encoder(2, dropout=dropout)
    kinds = {"hard_label": HardLabelLoss, "output": OutputLoss, "hidden": HiddenLoss}
    losses = tiny.bound(student, teacher, **{name: kinds[name](weight=weight) for name, weight in weights.items()})
    plan = replace(tiny.plan(folder, **changes), loggers=[KeptCsv(save_dir=folder, name="", version="logs")])
    plan.trainer["log_every_n_steps"] = every
    fit(student, losses, LocalTeacher(teacher, tiny.HEAD), plan)
    return folder


def logged(folder: Path) -> list[dict[str, float]]:
    """Gradient norms of each written step: term → norm."""
    with (folder / "logs" / "metrics.csv").open() as file:
        rows = [
            {k.removeprefix(curves.NORM): v for k, v in row.items() if curves.NORM in k} for row in csv.DictReader(file)
        ]
    return [{name: float(value) for name, value in row.items()} for row in rows if row and all(row.values())]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_norms_are_those_of_the_terms_trained_alone(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of 16 rows; .grad of a run in which the other weights are 0, as the optimizer gets it."""
    alone: list[float] = []

    def keep(module: DistillModule, optimizer: Any, *_: Any, **__: Any) -> None:
        alone.append(torch.cat([p.grad.flatten() for p in module.student.parameters()]).norm().item())

    hardware = Hardware(accelerator="cpu", batch_size=16 // accumulate, accumulate=accumulate)
    step: dict[str, Any] = {"rows": 16, "epochs": 1, "hardware": hardware}
    (found,) = logged(train(tmp_path / "all", optim=MEASURED, **step))
    monkeypatch.setattr(DistillModule, "configure_gradient_clipping", keep)
    for name in WEIGHTS:
        train(tmp_path / name, {other: WEIGHTS[name] * (other == name) for other in WEIGHTS}, **step)
    assert found == pytest.approx(dict(zip(WEIGHTS, alone, strict=True)), rel=1e-4)
    assert min(found.values()) > 1e-4


def test_they_leave_no_trace_in_the_weights(tmp_path: Path) -> None:
    saved = [
        torch.load(
            train(tmp_path / name, dropout=0.1, optim=optim, epochs=1) / "checkpoints" / "last.ckpt", weights_only=False
        )
        for name, optim in (("off", Optim(lr=1e-3)), ("on", MEASURED))
    ]
    off, on = (checkpoint["state_dict"] for checkpoint in saved)
    assert all(torch.equal(on[name], value) for name, value in off.items())
    assert not logged(tmp_path / "off") and len(logged(tmp_path / "on")) == 13


def test_only_written_steps_pay_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, add = [], GradientNorms.add
    monkeypatch.setattr(GradientNorms, "add", lambda self, *given: (steps.append(1), add(self, *given)))
    found = logged(train(tmp_path / "written", optim=MEASURED, epochs=1, every=5))
    assert len(steps) == len(found) == 2, "13 steps"
    assert len(logged(train(tmp_path / "due", optim=replace(MEASURED, gradient_norms=4), epochs=1))) == 3


def test_a_term_that_only_watches_pulls_at_nothing() -> None:
    norms = GradientNorms(student := torch.nn.Linear(2, 1))
    norms.add({"watches": torch.tensor(3.0), "pulls": student.weight.sum()}, 1.0)
    assert norms.take(lambda each: each) == {"watches": torch.tensor(0.0), "pulls": torch.tensor(2.0).sqrt()}


def test_the_report_shows_their_shares(tmp_path: Path) -> None:
    found = curves.read(train(tmp_path, optim=MEASURED, epochs=1))
    assert set(found.terms(curves.NORM)) == set(WEIGHTS)
    figure = curves.blocks(found, ClassificationJudge())[-1]
    assert isinstance(figure, Figure) and "share of each term in the gradient norm" in str(figure)
    assert all(term in str(figure) for term in WEIGHTS)


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        ({"strategy": "fsdp"}, "hardware.strategy=fsdp"),
        ({"compile": True}, "hardware.compile=true"),
        ({"precision": "16-mixed"}, "hardware.precision=16-mixed"),
    ],
)
def test_where_they_cannot_be_had_it_is_said(
    profile: dict[str, Any], word: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mangakd")
    student = tiny.encoder(2)
    losses = tiny.bound(student, None, hard_label=HardLabelLoss())
    RunModule(student, losses, None, MEASURED, Mock(Validation), Step(1, 1), hardware=Hardware(**profile))
    assert f"optim.gradient_norms is ignored: it does not work with {word}" in caplog.text
