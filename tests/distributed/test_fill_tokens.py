"""A store of a language model that two processes fill: the bytes of a fill by one, after a rank was killed, too."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import Teachers, context

from mangakd.cli.app import explain
from mangakd.core import ranks
from mangakd.store.writer import StoreWriter
from mangakd.teachers import fill
from mangakd.teachers.cached import Cached
from mangakd.training import launch
from mangakd.training.hardware import Hardware

pytestmark = pytest.mark.usefixtures("forked_ranks")
TWO = Hardware(accelerator="cpu", devices=2, strategy="ddp")
KINDS = ("topk", "draws", "states")
ROWS, SHARD, BATCH = 40, 16, 4


class Mortal(Teachers):
    """Kills its process after `left` forward passes."""

    def __init__(self, left: int | None) -> None:
        super().__init__()
        self._left = left

    def _count(self, *_: Any) -> None:
        super()._count()
        if self.forwards == self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def part(folder: Path, kinds: tuple[str, ...], victim: int | None = None) -> None:
    """One process's part of filling a store of each kind. victim: the rank that is killed in the second shard."""
    torch.set_num_threads(1)
    fill.StoreWriter = partial(StoreWriter, shard_rows=SHARD)  # type: ignore[attr-defined, misc]
    for kind in kinds:
        run = context(folder, Mortal(3 if ranks.rank() == victim else None), ROWS, BATCH)
        Cached(path="lm", stored_as=kind, k=5, store=str(folder / kind)).provider(run)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "writer.lock"}


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """Brings the writer back that `part` replaces in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fill, "StoreWriter", fill.StoreWriter)
        yield


@pytest.fixture(scope="module")
def whole(small_shards: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    part(folder, KINDS)
    return folder


def test_two_processes_write_the_bytes_of_one(whole: Path, tmp_path: Path) -> None:
    launch.start(part, (tmp_path, KINDS), TWO, tmp_path, explain)
    for kind in KINDS:
        assert contents(tmp_path / kind) == contents(whole / kind)
    assert len(contents(whole / "states")) == 3 + 1 + 3  # shards of train and of validation; manifest, journal, head


def test_a_killed_rank_costs_one_shard(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(launch.RankDied, match=r"rank 1 was killed by SIGKILL"):
        launch.start(part, (tmp_path, ("draws",), 1), TWO, tmp_path, explain)
    assert sum(name.startswith("shard") for name in contents(tmp_path / "draws")) == 1
    part(tmp_path, ("draws",))
    assert contents(tmp_path / "draws") == contents(whole / "draws")
