"""A student with adapters trains alike on one process and on two, replicated or sharded, and resumes across them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.output import OutputLoss
from mangakd.models import lora
from mangakd.models.encoder import Encoder
from mangakd.models.lora import Lora
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
pytestmark = pytest.mark.usefixtures("forked_ranks")
ONE = Hardware(accelerator="cpu", batch_size=8)
DDP = replace(ONE, devices=2, strategy="ddp", batch_size=4)
FSDP = replace(DDP, strategy="fsdp", activation_checkpointing=True)
EPOCHS = 2


def student(hardware: Hardware) -> Encoder:
    taught = tiny.encoder(2, dropout=0.0)
    torch.manual_seed(6)
    lora.store_base(lora.adapt(taught, Lora(2)), hardware.frozen)
    return taught


def part(folder: Path, hardware: Hardware, resume: Path | None = None, epochs: int = EPOCHS) -> None:
    """One process's part of a fit; each rank would draw its own dropout, so there is none."""
    torch.set_num_threads(1)
    teacher, taught = tiny.encoder(1, 3, 24, dropout=0.0), student(hardware)
    losses = tiny.bound(
        taught, teacher, hard=HardLabelLoss(weight=0.3), output=OutputLoss(weight=0.7), hidden=HiddenLoss(weight=0.5)
    )
    plan = tiny.plan(folder, hardware=hardware, epochs=epochs, rows=30, resume=resume)
    fit(taught, losses, LocalTeacher(teacher, tiny.HEAD), replace(plan, keep="last"))
    torch.save(taught.state_dict(), folder / f"student{launch.ranks.rank()}.pt")


def trained(folder: Path, hardware: Hardware, **changes: Any) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    args = (folder, hardware, changes.get("resume"), changes.get("epochs", EPOCHS))
    if hardware.world == 1:
        part(*args)
    else:
        launch.start(part, args, hardware, folder, no_user_error)
    states = [torch.load(file) for file in sorted(folder.glob("student*.pt"))]
    assert len(states) == hardware.world
    assert all(torch.equal(states[0][name], other[name]) for other in states for name in other)
    return states[0]


def no_user_error(error: BaseException) -> str | None:
    return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return trained(tmp_path_factory.mktemp("whole"), ONE)


@pytest.mark.parametrize("hardware", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_end_with_the_student_of_one(
    hardware: Hardware, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    ends = trained(tmp_path, hardware)
    before = student(hardware)
    for name, value in whole.items():
        moves = name in before.adapters.names  # type: ignore[union-attr]
        assert torch.equal(value, before.state_dict()[name]) != moves, name
        torch.testing.assert_close(ends[name], value, rtol=0, atol=1e-6, msg=name)
    states = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    held = {name.removeprefix("student.") for name in states["state_dict"] if name.startswith("student.")}
    assert held == before.adapters.names  # type: ignore[union-attr]
    assert set(states["optimizer_states"][0]["state"]) == set(states["state_dict"])


def test_a_sharded_run_resumes_what_one_process_began(whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    trained(tmp_path / "one", replace(ONE), epochs=1)
    ends = trained(tmp_path / "two", FSDP, resume=tmp_path / "one" / "checkpoints" / "last.ckpt")
    first = trained(tmp_path / "again", ONE, resume=tmp_path / "one" / "checkpoints" / "last.ckpt")
    for name, value in first.items():
        torch.testing.assert_close(ends[name], value, rtol=0, atol=1e-6, msg=name)


def test_a_base_in_bf16_is_sharded_with_adapters_in_fp32(tmp_path: Path) -> None:
    hardware = replace(FSDP, precision="bf16-mixed")
    ends, before = trained(tmp_path, hardware), student(hardware)
    for name, value in before.state_dict().items():
        learns = name in before.adapters.names  # type: ignore[union-attr]
        assert (
            ends[name].dtype
            == value.dtype
            == (torch.float32 if learns or not value.is_floating_point() else torch.bfloat16)
        )
        assert torch.equal(ends[name], value) != learns, name
