"""hardware.compile=true: the same losses with taps in place, few graphs, the same names in checkpoints.

What the compiler itself makes is looked at once, as it takes it twenty seconds; elsewhere its front end runs alone, which is
what sees hooks, taps, shapes and guards.
"""

import csv
import functools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from mangakd.core.requires import Need
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.output import OutputLoss
from mangakd.models.encoder import Encoder
from mangakd.models.hidden import layer_list
from mangakd.teachers.local import LocalTeacher
from mangakd.training.callbacks.save_last import SaveEvery
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

PLAIN = Hardware(accelerator="cpu", batch_size=8)
COMPILED = replace(PLAIN, compile=True)
# Scalar code: trying out which vector units there are takes as long as compiling.
QUICK = {"compile_threads": 1, "cpp.vec_isa_ok": True, "cpp.simdlen": 1}


@pytest.fixture(autouse=True)
def nothing_compiled_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()
    counters.clear()


@pytest.fixture
def front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))


def trained(folder: Path, layers: int = 2, limit: int | None = None, **changes: Any) -> Encoder:
    """The student of a distillation with every kind of tap. limit: validation batches."""
    # Without dropout, which compiled code draws in its own way.
    teacher, student = tiny.encoder(1, layers + 1, 24, dropout=0.0), tiny.encoder(2, layers, dropout=0.0)
    losses = tiny.bound(
        student, teacher, hard_label=HardLabelLoss(weight=0.3), output=OutputLoss(weight=0.7), hidden=HiddenLoss(weight=0.1),
        attention=AttentionLoss(weight=0.1),
    )  # fmt: skip
    plan = tiny.plan(folder, **changes)
    plan.loggers = [CSVLogger(folder, name="", version="")]
    plan.trainer["limit_val_batches"] = limit
    plan.save_every = SaveEvery(every_steps=14)
    fit(student, losses, LocalTeacher(teacher, tiny.HEAD), plan)
    return student


def curves(folder: Path) -> torch.Tensor:
    """(steps, losses) of a run."""
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return torch.tensor([[float(row[name]) for name in row if name.startswith("train/loss")] for row in rows])


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=False)["state_dict"]


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile for a CPU needs g++")
def test_compiled_training_gives_the_same_losses(tmp_path: Path) -> None:
    for name, hardware in (("plain", PLAIN), ("compiled", COMPILED)):
        with inductor.patch(QUICK):
            trained(tmp_path / name, layers=1, limit=0, hardware=hardware, rows=30, epochs=2)
    assert counters["inductor"], "nothing was compiled"
    plain, compiled = curves(tmp_path / "plain"), curves(tmp_path / "compiled")
    assert plain.shape == (8, 5)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("front_end")
def test_a_plain_run_goes_on_compiled_with_few_graphs_and_the_same_names(tmp_path: Path) -> None:
    trained(tmp_path / "plain", hardware=PLAIN, epochs=2, rows=97)
    kept = tmp_path / "plain" / "checkpoints"
    fourteenth = kept / "last-previous.ckpt"
    student = trained(tmp_path / "compiled", hardware=COMPILED, epochs=2, rows=97, resume=fourteenth)
    expected, found = weights(kept / "last.ckpt"), weights(tmp_path / "compiled" / "checkpoints" / "last.ckpt")
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)
    # Of 12 steps of all lengths: training, evaluation, and the step with a single row.
    assert counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]
    before = counters["frames"]["total"]
    tokens = torch.ones(2, 5, dtype=torch.long)
    assert student.require(Need(True, frozenset({1})))({"input_ids": tokens, "attention_mask": tokens}).hidden
    assert counters["frames"]["total"] == before, "after a fit the student is an ordinary model"


def test_tapped_layers_share_a_graph() -> None:
    """FSDP compiles layer by layer; a graph for each of them would soon meet torch's limit of eight."""
    student = tiny.encoder(2, layers=4, dropout=0.0)
    student.require(Need(True, frozenset({1, 2, 3, 4}), frozenset({1, 2, 3, 4})))
    for layer in layer_list(student.model, 4) or ():
        layer.compile(backend="eager", dynamic=True)
    tokens = torch.ones(3, 5, dtype=torch.long)
    found = student({"input_ids": tokens, "attention_mask": tokens})
    assert set(found.attention) == {1, 2, 3, 4}
    assert counters["stats"]["unique_graphs"] == 1
