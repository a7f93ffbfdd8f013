"""Activation checkpointing changes memory, not the result; and bf16 weights that small steps do not move are warned about."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from contract.tiny_models import config, model

from mangakd.core.errors import UserError
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.teachers.local import LocalTeacher
from mangakd.training import recompute
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware
from mangakd.training.machine import lost_steps
from mangakd.training.optim import Optim


def trained(folder: Path, hardware: Hardware) -> tuple[dict[str, torch.Tensor], int]:
    """(weights after steps with dropout, taps and gradient norms, forward passes of a layer)."""
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    teacher, student = tiny.encoder(1, 3, 24), tiny.encoder(2)
    student.model.bert.encoder.layer[0].intermediate.register_forward_hook(count)
    losses = tiny.bound(student, teacher, hard=HardLabelLoss(), hidden=HiddenLoss(), attention=AttentionLoss())
    plan = tiny.plan(folder, hardware=hardware, epochs=1, rows=40, optim=Optim(lr=1e-3, gradient_norms=2))
    fit(student, losses, LocalTeacher(teacher, tiny.HEAD), replace(plan, keep="last"))
    return student.state_dict(), passes


def test_weights_are_the_same_bits_and_layers_run_twice(tmp_path: Path) -> None:
    plain = Hardware(accelerator="cpu", batch_size=8)
    kept, once = trained(tmp_path / "kept", plain)
    again, twice = trained(tmp_path / "again", replace(plain, activation_checkpointing=True))
    assert all(torch.equal(again[name], value) for name, value in kept.items())
    assert twice >= once + 5, "each of 5 training steps computes the layer again"


def test_a_model_that_transformers_cannot_checkpoint_is_refused() -> None:
    built = model(config("bert"))
    recompute.check(True, built)
    built.supports_gradient_checkpointing = False
    recompute.check(False, built)
    with pytest.raises(UserError, match=r"activation_checkpointing=true: transformers has none for bert"):
        recompute.check(True, built)


def test_steps_that_bf16_weights_lose_are_real_and_warned_about() -> None:
    small, large = 1e-5, 1e-3
    for rate, moves in ((small, False), (large, True)):
        weight = torch.nn.Parameter(torch.full((4,), 0.05, dtype=torch.bfloat16))
        optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=0.0)
        for _ in range(16):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert bool((weight != torch.tensor(0.05, dtype=torch.bfloat16)).all()) == moves
    true = Hardware(accelerator="cpu", precision="bf16-true")
    assert [text.partition(":")[0] for text in lost_steps(true, {"optim.lr": small, "stages.a.lr": large})] == [
        "hardware.precision=bf16-true with optim.lr=1e-05"
    ]
    assert not list(lost_steps(replace(true, precision="bf16-mixed"), {"optim.lr": small}))
