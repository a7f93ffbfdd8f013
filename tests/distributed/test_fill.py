"""A store that several processes fill: the bytes of a fill by one, after a kill and with another number of processes, too."""

import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.tiny_models import Teachers, context
from warm import Command

from mangakd.cli.app import explain
from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.store.writer import StoreWriter
from mangakd.teachers import fill
from mangakd.teachers.cached import Cached
from mangakd.training import launch
from mangakd.training.hardware import Hardware

pytestmark = pytest.mark.usefixtures("forked_ranks")
TWO = Hardware(accelerator="cpu", devices=2, strategy="ddp")
ROWS, SHARD, BATCH = 150, 32, 8  # 19 batches in 5 shards, then 20 and 9 rows in a shard each
BATCHES = 19 + 3 + 2
SMALL = "hardware.eval_batch_size=8"


class Mortal(Teachers):
    """Kills its process after `left` forward passes, of which it writes a line each to a file."""

    def __init__(self, file: Path, left: int | None) -> None:
        super().__init__()
        self._file, self._left = file, left

    def _count(self, *_: Any) -> None:
        super()._count()
        with self._file.open("a") as file:
            file.write(f"{ranks.rank()}\n")
        if self.forwards == self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def part(folder: Path, victim: int | None = None) -> None:
    """One process's part of a run that needs the store. victim: the rank that is killed in the second shard of a fill by two."""
    torch.set_num_threads(1)
    fill.StoreWriter = partial(StoreWriter, shard_rows=SHARD)  # type: ignore[attr-defined, misc]
    run = context(folder, Mortal(folder / "forwards", 3 if ranks.rank() == victim else None), ROWS, BATCH)
    provider = Cached(path="bert", store=str(folder / "store")).provider(run)
    provider.prepare(run.device, Need(answer=True))(run.splits["train"].collate([0, ROWS - 1]))


def run(processes: int, folder: Path, victim: int | None = None) -> list[str]:
    """Fills folder/store; returns the rank of each forward pass that this took."""
    before = forwards(folder)
    if processes == 1:
        part(folder)
    else:
        launch.start(part, (folder, victim), TWO, folder, explain)
    return forwards(folder)[len(before) :]


def forwards(folder: Path) -> list[str]:
    file = folder / "forwards"
    return file.read_text().split() if file.exists() else []


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "store").iterdir() if path.name != "writer.lock"}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brings the writer back that `part` replaces in this process."""
    monkeypatch.setattr(fill, "StoreWriter", fill.StoreWriter)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    assert run(1, folder) == BATCHES * ["0"]
    return contents(folder)


def test_two_processes_write_the_bytes_of_one(whole: dict[str, bytes], tmp_path: Path) -> None:
    share = run(2, tmp_path)
    # Of the last shard of train (3 batches), of validation (3) and of test (2) the first rank computes 2, 2 and 1.
    assert (share.count("0"), share.count("1")) == (13, 11)
    assert contents(tmp_path) == whole
    assert run(2, tmp_path) == [], "a full store was filled again"


@pytest.mark.parametrize(("victim", "processes"), [(0, 1), (1, 2)])
def test_a_killed_rank_costs_one_shard(victim: int, processes: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(launch.RankDied, match=f"rank {victim} was killed by SIGKILL"):
        run(2, tmp_path, victim)
    assert sum(name.startswith("shard") for name in contents(tmp_path)) == 1
    assert len(run(processes, tmp_path)) == BATCHES - SHARD // BATCH
    assert contents(tmp_path) == whole


def test_two_jobs_at_once_fill_it_once(whole: dict[str, bytes], tmp_path: Path) -> None:
    """One of a single process, one of two: whoever comes second waits for the lock and finds the store full."""
    other = threading.Thread(target=part, args=(tmp_path,))
    other.start()
    run(2, tmp_path)
    other.join()
    assert len(forwards(tmp_path)) == BATCHES
    assert contents(tmp_path) == whole


def test_the_command_fills_with_all_devices_of_the_profile(base: list[str], command: Command, tmp_path: Path) -> None:
    one = command("scripts/cache_teacher.py", *base, SMALL, f"teacher.store={tmp_path / 'one' / 'store'}")
    assert one.returncode == 0, one.stderr
    words = [*base, SMALL, "hardware=cpu_ddp", f"teacher.store={tmp_path / 'two' / 'store'}"]
    two = command("scripts/cache_teacher.py", *words)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count(", by 2 processes") == 4 and two.stdout.count(" examples written, ") == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    verified = command("scripts/cache_teacher.py", *words, "verify=true")
    assert verified.stdout.count("verified: ") == 1, verified.stderr


def test_several_machines_are_told_to_start_this_command() -> None:
    with pytest.raises(UserError, match=r"torchrun --nnodes=2 .* -m mangakd cache-teacher …"):
        launch.join(Hardware(devices=2, nodes=2), "cache_teacher")
