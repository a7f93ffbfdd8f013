"""hardware.attention and hardware.teacher.dtype: that they do what they say, and that the losses stay what they were."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import save_tiny
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig

from mangakd.cli.given import run_of
from mangakd.core.requires import Need
from mangakd.data.loader import EvalBatches
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.runs.run import Run
from mangakd.training.fit import Fit, fit

Prepare = Callable[..., Run]


@pytest.fixture(scope="module")
def outspoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher whose answers are far from uniform; without dropout, which SDPA and eager attention draw differently."""
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return save_tiny(tmp_path_factory.mktemp("models") / "outspoken", initializer_range=0.2, **off)


@pytest.fixture
def prepare(compose: Callable[..., DictConfig], outspoken: Path, tiny_csv: Path, tmp_path: Path) -> Prepare:
    """prepare(*overrides) → a run on a CPU of a student with layers 1 and 3 of the teacher."""
    base = ["data=files", f"data.path={tiny_csv}", f"teacher.path={outspoken}", "student=teacher_layers",
            "student.layers=[1,3]", "hardware=cpu", "hardware.precision=32-true",
            "hardware.batch_size=8", "data.max_length=16"]  # fmt: skip
    return lambda *more: run_of(compose(*base, *more), tmp_path)


def curve(run: Run, folder: Path, **losses: LossCallback) -> torch.Tensor:
    """(steps, losses) of one epoch."""
    parts, material = run.parts, run.material
    student, teacher = material.students.build(), material.teacher()
    terms = LossSet({"hard_label": HardLabelLoss(), "output": OutputLoss(), "hidden": HiddenLoss(), **losses})
    terms.bind(student.spec, teacher.spec)
    plan = Fit(
        "options", folder, parts.task, material.splits["train"], material.splits["validation"], parts.optim, parts.hardware, 0,
        {"max_epochs": 1, "log_every_n_steps": 1}, loggers=[CSVLogger(folder, name="", version="")],
    )  # fmt: skip
    fit(student, terms, teacher, plan)
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return torch.tensor([[float(row[name]) for name in row if name.startswith("train/loss")] for row in rows])


def test_eager_attention_gives_the_same_losses(prepare: Prepare, tmp_path: Path) -> None:
    plain, found = (curve(prepare(f"hardware.attention={name}"), tmp_path / name) for name in ("sdpa", "eager"))
    assert not torch.equal(found, plain)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)


def test_a_teacher_in_bf16_gives_nearly_the_same_losses(prepare: Prepare, tmp_path: Path) -> None:
    plain, found = (
        curve(prepare(f"hardware.teacher.dtype={name}"), tmp_path / name, attention=AttentionLoss())
        for name in ("float32", "bfloat16")
    )
    assert plain.shape[1] == 5 and (plain > 5e-3).all(), "losses of nearly nothing prove nothing"
    assert not torch.equal(found, plain)
    torch.testing.assert_close(found, plain, rtol=0.03, atol=1e-3)


@pytest.mark.parametrize(("attention", "calls"), [("sdpa", 5), ("eager", 0)])
def test_teacher_and_student_attend_as_the_profile_says(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, attention: str, calls: int
) -> None:
    run, counted = prepare(f"hardware.attention={attention}"), []
    encoders = (run.material.members.read(run.parts.teacher.models[0]), run.material.students.build())
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: counted.append(1) or real(*a, **k)
    )
    tokens = torch.ones(2, 5, dtype=torch.long)
    for encoder in encoders:
        encoder({"input_ids": tokens, "attention_mask": tokens})
    assert len(counted) == calls  # layers of both


def test_tapped_attention_is_sdpa_and_says_so(prepare: Prepare, caplog: pytest.LogCaptureFixture) -> None:
    student = (
        prepare("hardware.attention=eager").material.students.build().require(Need(True, attention=frozenset({2})))
    )
    assert "attends with sdpa, not eager" in caplog.text
    assert student.require(Need(True)).model.config._attn_implementation == "eager"


def test_the_teacher_has_the_dtype_of_the_profile_and_the_student_has_not(prepare: Prepare) -> None:
    material = prepare("hardware.teacher.dtype=bfloat16").material
    teacher, student = material.teacher(), material.students.build()
    assert {parameter.dtype for parameter in teacher.encoders[0].parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


def test_a_store_holds_what_the_teacher_says_in_its_dtype(prepare: Prepare) -> None:
    run = prepare("teacher=cached", "hardware.teacher.dtype=bfloat16")
    stored, live = run.material.teacher(), run.parts.teacher.live(run.material.context)
    batch = next(iter(EvalBatches(run.material.splits["train"], run.parts.hardware.eval_batch_size)))
    assert torch.equal(
        stored(batch).logits, live.prepare(run.parts.hardware.device, Need(answer=True))(batch).logits.float()
    )
    assert prepare("teacher=cached").material.teacher().fingerprint != stored.fingerprint
