"""Commands and ranks as processes of their own, without seconds of imports for each: forked off a server that has imported torch,
transformers and mangakd, and has done nothing else.

What a new interpreter alone can show (what it imports, signals, kills) starts one: tests/integration/test_command.py,
tests/distributed/test_launch.py, tests/install.
"""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[1]
TIMEOUT = 600.0
IMPORTED = ("mangakd.cli.train", "mangakd.cli.export", "transformers.models.bert.modeling_bert", "pytest")
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """Where processes are forked; it starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    yield context
    multiprocessing.forkserver._forkserver._stop()


@pytest.fixture(scope="session")
def command(server: Any) -> Command:
    """command("train.py", "hardware=cpu", …): what `python train.py hardware=cpu …` does in REPO, or in `cwd`.

    More keywords are environment variables, PYTHONPATH among them.
    """

    def run(script: str, *words: object, cwd: Path = REPO, **more: str) -> "subprocess.CompletedProcess[str]":
        typed = [str(REPO / script), *map(str, words)]
        with tempfile.TemporaryDirectory() as folder:
            out, error = Path(folder) / "out", Path(folder) / "error"
            process = server.Process(target=_run, args=(typed, out, error, cwd, {**os.environ, **more}))
            process.start()
            process.join(TIMEOUT)
            if process.exitcode is None:
                process.kill()
                raise subprocess.TimeoutExpired(typed, TIMEOUT, out.read_text(), error.read_text())
            return subprocess.CompletedProcess(typed, process.exitcode, out.read_text(), error.read_text())

    return run


def _run(typed: list[str], out: Path, error: Path, cwd: Path, environment: dict[str, str]) -> None:
    for number, file in enumerate((out, error), start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
    _set(environment)
    sys.path[:0] = [str(Path(typed[0]).parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = typed
    os.chdir(cwd)
    try:
        runpy.run_path(typed[0], run_name="__main__")
    finally:  # as an interpreter ends; multiprocessing waits for children first
        threading._shutdown()
        atexit._run_exitfuncs()


def _set(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def forked_ranks(server: Any) -> Iterator[None]:
    """The ranks that `launch.start` starts are forked, too."""
    import torch.multiprocessing

    start = torch.multiprocessing.start_processes

    def forked(work: Callable[..., None], args: tuple[Any, ...], nprocs: int, join: bool) -> Any:
        return start(_rank, (dict(os.environ), work, args), nprocs, join, start_method="forkserver")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.multiprocessing, "start_processes", forked)
        yield


def _rank(rank: int, environment: dict[str, str], work: Callable[..., None], args: tuple[Any, ...]) -> None:
    _set(environment)
    work(rank, *args)
