"""A run of task=rerank or task=embedding that SIGKILL ends goes on where its last checkpoint was, and ends with the same bits."""

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranking_rows import TOPICS, rows, written
from warm import Command

SPLITS = ("path", "val_path", "test_path")
STEPS = 40


def sentences(count: int, seed: int) -> list[dict]:
    """Pairs of texts that share some of their words."""
    chance, content = random.Random(seed), []
    for i in range(count):
        one, other = chance.sample(TOPICS, 3), chance.sample(TOPICS, 3)
        shared = i % 4
        content.append(
            {"anchor": " ".join(one), "positive": " ".join(one[:shared] + other[shared:]), "score": shared / 3}
        )
    return content


CONTENT = {"rerank": lambda seed: rows(24, seed), "embedding": lambda seed: sentences(24, seed)}
LOSSES = {"rerank": "losses=[listwise_kl,list_net,hidden]", "embedding": "losses=[pair_score]"}


@pytest.mark.parametrize("task", CONTENT)
def test_killed_and_resumed(
    task: str,
    tiny_fresh: Path,
    compose: Callable[..., Any],
    run_here: Callable[..., None],
    command: Command,
    tmp_path: Path,
) -> None:
    files = [f"data.{key}={written(tmp_path / f'{key}.jsonl', CONTENT[task](i))}" for i, key in enumerate(SPLITS)]
    words = [
        f"task={task}", "data=files", *files, LOSSES[task], f"teacher.path={tiny_fresh}", "student.layers=[1,3]", "hardware=cpu",
        "hardware.precision=32-true", "hardware.batch_size=6", "data.max_length=24", "teacher.fit.epochs=5",
        "teacher.fit.lr=3e-3", f"trainer.max_epochs={STEPS // 4}", "logger=[]", "checkpoint.every_steps=1",
    ]  # fmt: skip
    run_here(compose(*words), tmp_path / "whole")
    killed = tmp_path / "killed"
    kill_after_a_step(command, killed, *words, f"paths.cache={tmp_path / 'cache'}")
    assert 0 < last(killed)["global_step"] < STEPS == last(tmp_path / "whole")["global_step"]
    run_here(compose(*words, "resume=auto"), killed)
    for part in ("state_dict", "optimizer_states"):
        assert same(last(tmp_path / "whole")[part], last(killed)[part])
    scores = [scores_of(folder) for folder in (tmp_path / "whole", killed)]
    assert scores[0] == scores[1] and "test/retention" in scores[0]


def kill_after_a_step(command: Command, folder: Path, *words: str) -> None:
    """A process of its own, killed as soon as it has written a checkpoint."""
    child = command.start("train.py", *words, f"hydra.run.dir={folder}")
    end = time.monotonic() + 300
    while not (folder / "checkpoints" / "last.ckpt").exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    child.kill()
    done = child.end()
    assert done.returncode == -signal.SIGKILL, (done.stdout + done.stderr)[-3000:]


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


def same(one: Any, other: Any) -> bool:
    """Bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def scores_of(run: Path) -> dict[str, float]:
    scores = json.loads((run / "metrics.json").read_text())
    return {name: value for name, value in scores.items() if name not in ("run/seconds", "train/samples_per_second")}
