"""FSDP with the teacher in shards, and bf16-mixed under FSDP and DDP: the losses of every step, beside those of plain fp32.

All ways run one after the other in the same two processes: starting them is most of the cost.
"""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.distributed.tensor import DTensor

from mangakd.core import ranks
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.output import OutputLoss
from mangakd.models.encoder import Encoder
from mangakd.models.hidden import layer_list
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware, TeacherPlace

DDP = Hardware(accelerator="cpu", devices=2, strategy="ddp", batch_size=4)
FSDP = replace(DDP, strategy="fsdp")
SHARDED = replace(FSDP, teacher=TeacherPlace("sharded"))
WAYS = {
    "replicated": FSDP,
    "sharded": SHARDED,
    "sharded, teacher in bf16": replace(SHARDED, teacher=TeacherPlace("sharded", "bfloat16")),
    "sharded, bf16-mixed": replace(SHARDED, precision="bf16-mixed"),
    "DDP, bf16-mixed": replace(DDP, precision="bf16-mixed"),
}


def run(folder: Path) -> None:
    """One rank's part of all ways. Leaves each way's losses, and whether the weights of the teacher's layers are shards."""
    torch.set_num_threads(1)
    for way, hardware in WAYS.items():
        teacher, student = outspoken(tiny.encoder(1, 3, 24, dropout=0.0)), outspoken(tiny.encoder(2, dropout=0.0))
        losses = tiny.bound(
            student, teacher, hard_label=HardLabelLoss(weight=0.3), output=OutputLoss(weight=0.7),
            hidden=HiddenLoss(weight=0.1), attention=AttentionLoss(weight=0.1),
        )  # fmt: skip
        provider = LocalTeacher(teacher.to(hardware.teacher.weights()), tiny.HEAD)
        plan = tiny.plan(folder / way, hardware=hardware, epochs=1)
        plan.loggers = [CSVLogger(folder / way, name="", version="")]
        fit(student, losses, provider, plan)
        layers = layer_list(teacher.model, 3)  # what is outside the layers stays put together after a forward pass
        assert layers is not None
        if ranks.is_first():
            shards = [isinstance(parameter, DTensor) for parameter in layers.parameters()]
            (folder / way / "sharded.json").write_text(json.dumps(shards))


def outspoken(encoder: Encoder) -> Encoder:
    """With answers and maps far from uniform, so that losses are not nearly zero."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return encoder


def no_user_error(error: BaseException) -> str | None:
    return None


@pytest.fixture(scope="module")
def folder(forked_ranks: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    launch.start(run, (folder,), FSDP, folder, no_user_error)
    return folder


def curves(folder: Path, way: str) -> torch.Tensor:
    """(steps, losses) of a way."""
    with (folder / way / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return torch.tensor([[float(row[name]) for name in row if name.startswith("train/loss")] for row in rows])


# Rounding in another order, and numbers of 8 bits.
@pytest.mark.parametrize(
    ("way", "rtol"), [(way, 1e-5 if way == "sharded" else 0.03) for way in WAYS if way != "replicated"]
)
def test_the_losses_are_those_of_a_replicated_teacher_in_fp32(folder: Path, way: str, rtol: float) -> None:
    expected, found = curves(folder, "replicated"), curves(folder, way)
    assert expected.shape == (13, 5)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=0)
    assert "bf16" not in way or not torch.equal(found, expected), "bf16 was not used"


def test_only_a_sharded_teacher_is_in_shards(folder: Path) -> None:
    for way, hardware in WAYS.items():
        shards = json.loads((folder / way / "sharded.json").read_text())
        assert set(shards) == {hardware.teacher.placement == "sharded"}, way
