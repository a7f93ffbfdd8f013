"""A capture that is killed, anywhere and several times, ends byte-identical; two writers do not meet."""

import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.store import files
from mangakd.store.manifest import Manifest
from mangakd.store.reader import StoreReader
from mangakd.store.writer import StoreWriter

MANIFEST = Manifest(teacher="t0", tokenizer="v0", head=Head("labels", 3, ("a", "b", "c")))
KEYS = np.random.default_rng(0).integers(-(2**63), 2**63, 500, dtype=np.int64)
ROWS = 8
CALLS = itertools.count()

# Run as `python this_file FOLDER`: a capture slow enough to be killed in the middle.
CHILD = Path(__file__)


def compute(positions: np.ndarray) -> np.ndarray:
    logits = np.repeat((KEYS[positions] % 1009)[:, None, None], 3, axis=2).astype(np.float32)
    return MANIFEST.codec.encode({"logits": logits})


def slowly(positions: np.ndarray) -> np.ndarray:
    time.sleep(0.012 if next(CALLS) < 10 else 600)  # a busy machine may kill late: no child comes to the end
    return compute(positions)


def fill(folder: Path, function=compute, keys: np.ndarray = KEYS) -> int:
    with StoreWriter(folder, MANIFEST, ROWS) as writer:
        return writer.capture(keys, function)


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.iterdir() if path.name != files.LOCK]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def start(folder: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(CHILD), str(folder), *more], stdout=subprocess.PIPE, text=True)


def shards(folder: Path) -> int:
    return len(list(folder.glob("shard-*.npy")))


def test_a_killed_process_resumes_byte_identical(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fill(whole)
    chance = random.Random(0)
    for _ in range(5):
        before = shards(killed)
        with start(killed) as child:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            while child.poll() is None and shards(killed) < before + 3:  # it is in the middle of its work
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.03))
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL and shards(killed) < shards(whole)
    assert 0 < fill(killed) < len(KEYS)  # resumed, and not from the start
    assert digests(killed) == digests(whole)


class Killed(BaseException):
    """Stands for a kill between two system calls."""


def test_a_kill_at_every_single_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KEYS[: 3 * ROWS + 2]
    fill(tmp_path / "whole", keys=keys)
    expected = digests(tmp_path / "whole")
    steps = {"left": -1}

    def counted(function):
        def call(*arguments):
            if steps["left"] == 0:
                raise Killed
            steps["left"] -= 1
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(files, "sha256", counted(files.sha256))
    for step in range(100):
        folder = tmp_path / str(step)
        steps["left"] = step
        try:
            fill(folder, keys=keys)
        except Killed:
            steps["left"] = -1
            fill(folder, keys=keys)
            assert digests(folder) == expected, f"killed at step {step}"
        else:
            break
    assert 20 < step < 99  # manifest, journal and four shards have about five steps each


@pytest.mark.parametrize("torn", [1, 30, 100])
def test_a_truncated_journal_line_is_written_again(tmp_path: Path, torn: int) -> None:
    keys = KEYS[: 5 * ROWS + 4]
    fill(tmp_path, keys=keys)
    expected = digests(tmp_path)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-torn])
    held = len(StoreReader(tmp_path, MANIFEST))
    assert held == (44 if torn == 1 else 40)  # only the line's end is lost, or the last shard of four rows
    fill(tmp_path, keys=keys)
    assert digests(tmp_path) == expected


def test_the_second_of_two_processes_is_told(tmp_path: Path) -> None:
    with start(tmp_path, "hold") as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        with pytest.raises(UserError) as caught:
            fill(tmp_path)
        assert str(tmp_path) in str(caught.value) and f"pid {child.pid}" in str(caught.value)
        child.send_signal(signal.SIGKILL)
    assert fill(tmp_path) == len(KEYS)  # the lock ended with its process


def test_two_writers_in_one_process(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, MANIFEST), pytest.raises(UserError, match=f"pid {os.getpid()}"):
        fill(tmp_path)
    assert fill(tmp_path) == len(KEYS)


if __name__ == "__main__":
    with StoreWriter(sys.argv[1], MANIFEST, ROWS) as held:
        print("ready", flush=True)
        if "hold" in sys.argv:
            time.sleep(600)
        held.capture(KEYS, slowly)
