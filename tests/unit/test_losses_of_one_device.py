"""Losses that compare rows, where several devices hold those of a batch or an optimizer step has several batches."""

from pathlib import Path

import pytest
import tiny

from mangakd.core.errors import UserError
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.runs.checks import recipe
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

TWO = Hardware(accelerator="cpu", devices=2, strategy="ddp")


class Contrast(HardLabelLoss):
    additive = False


class Gathers(Contrast):
    gathers = ("labels",)


class States(HiddenLoss):
    additive = False
    gathers = ("labels",)


def losses() -> LossSet:
    own = {"near": Contrast(), "all": Gathers(), "states": States(), "hard_label": HardLabelLoss()}
    return tiny.bound(tiny.encoder(1), tiny.encoder(2), **own)


def test_what_cannot_gather_is_refused_on_several_devices() -> None:
    recipe.comparing(losses(), Hardware(accumulate=2))
    words = (
        r"losses near, states compare .* each of 2 devices .* leave them out: losses\.near=null, losses\.states=null\.$"
    )
    with pytest.raises(UserError, match=words):
        recipe.comparing(losses(), TWO)


def test_what_gathers_is_not_refused() -> None:
    student = tiny.encoder(1)
    recipe.comparing(tiny.bound(student, None, all=Gathers(), hard_label=HardLabelLoss()), TWO)


def test_micro_batches_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where a resumed run cuts its steps into others than before."""
    notice = "losses near compare the rows of a micro-batch"
    for hardware, resume, words in (
        (Hardware(accelerator="cpu", batch_size=8), None, ()),
        (Hardware(accelerator="cpu", batch_size=4), tmp_path / "checkpoints" / "last.ckpt", (notice, "batch_size=8")),
    ):
        caplog.clear()
        student = tiny.encoder(1)
        plan = tiny.plan(tmp_path, hardware=hardware, rows=16, epochs=1 if resume is None else 2, resume=resume)
        fit(student, tiny.bound(student, None, near=Contrast()), None, plan)
        assert [word in caplog.text for word in (notice, "batch_size=8")] == [bool(words)] * 2
