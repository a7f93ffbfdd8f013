"""A run stopped on 2 processes goes on with 1 and the other way round, with every row once; what is in no shard is refused."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForSequenceClassification

from mangakd.core import ranks
from mangakd.core.outputs import Batch, Outputs
from mangakd.losses.base import LossOutput
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch, parallel
from mangakd.training.callbacks.save_last import Interrupted
from mangakd.training.checkpoints import newest
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

pytestmark = pytest.mark.usefixtures("forked_ranks")
ONE = Hardware(accelerator="cpu", batch_size=8)
DDP = replace(ONE, devices=2, strategy="ddp", batch_size=4)
FSDP = replace(DDP, strategy="fsdp")
STOP = 20  # of 39 steps, in the second epoch


class Seen(HardLabelLoss):
    """Hard labels; writes the rows of each step to a file per process, and sends SIGTERM on one rank at one step."""

    def __init__(self, folder: Path, stop: int | None) -> None:
        super().__init__()
        self._file, self._left = folder / f"seen.{os.getpid()}", stop

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        if batch["scale"]["rows"]:
            with self._file.open("a") as file:
                file.write("".join(f"{key}\n" for key in batch["key"].tolist()))
        if self._left is not None:
            self._left -= 1
            if self._left == 0 and ranks.is_first():
                os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(student, teacher, batch)


def part(folder: Path, hardware: Hardware, stop: int | None) -> None:
    """One process's part of a run, from the newest checkpoint on; `student` is exported at its end."""
    torch.set_num_threads(1)
    # Without dropout, of which each rank draws its own.
    teacher, student = tiny.encoder(1, 3, 24, dropout=0.0), tiny.encoder(2, dropout=0.0)
    torch.manual_seed(5)
    losses = LossSet({"hard_label": Seen(folder, stop), "hidden": HiddenLoss(weight=0.1)})
    losses.bind(student.spec, teacher.spec)
    plan = tiny.plan(folder, hardware=hardware)
    plan.resume = ranks.share(newest(plan.checkpoints))
    try:
        fit(student, losses, LocalTeacher(teacher, tiny.HEAD), plan)
    except Interrupted:
        return
    if ranks.is_first():
        student.model.save_pretrained(folder / "student")


def run(folder: Path, hardware: Hardware, stop: int | None = None) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    if hardware.world == 1:
        part(folder, hardware, stop)
    else:
        launch.start(part, (folder, hardware, stop), hardware, folder, no_user_error)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def no_user_error(error: BaseException) -> str | None:
    return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return run(tmp_path_factory.mktemp("whole"), ONE)


@pytest.mark.parametrize(
    ("first", "then"), [(FSDP, ONE), (ONE, FSDP), (DDP, ONE)], ids=["2_to_1", "1_to_2", "ddp_to_1"]
)
def test_a_run_goes_on_elsewhere(
    first: Hardware, then: Hardware, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run(tmp_path, first, STOP)
    stopped = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    assert STOP <= stopped <= STOP + 1, "ranks agree on the step after the signal"
    found = run(tmp_path, then)
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)
    seen = [key for file in tmp_path.glob("seen.*") for key in file.read_text().split()]
    assert sorted(seen) == sorted(3 * [str(key) for key in tiny.split(100, 1).teacher.keys]), "each row once an epoch"
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)["state_dict"]
    assert all(torch.equal(value, best[f"student.model.{name}"]) for name, value in student.state_dict().items())


def test_a_trainable_module_in_no_shard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo")
    try:
        student = tiny.encoder(2)
        losses = tiny.bound(student, tiny.encoder(1, 3, 24), hidden=HiddenLoss())
        module = nn.Module()
        module.student, module.losses, module.forgotten = student, losses, nn.Linear(2, 2)
        with pytest.raises(RuntimeError, match=r"in no shard: forgotten\.weight, forgotten\.bias"):
            parallel.shard(module, student, losses, init_device_mesh("cpu", (1,)), "32-true")
        del module.forgotten
        parallel.check_sharded(module)
    finally:
        dist.destroy_process_group()
