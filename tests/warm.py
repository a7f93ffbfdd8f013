"""Commands and ranks as processes of their own, without seconds of imports for each: forked off a server that has imported torch,
transformers and mangakd, and has done nothing else.

What only a new interpreter shows (what it imports and prints meanwhile) starts one: tests/integration/test_command.py,
tests/distributed/test_launch.py, tests/install.
"""

import atexit
import functools
import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO

TIMEOUT = 600.0
IMPORTED = ("mangakd.cli.train", "mangakd.cli.export", "transformers.models.bert.modeling_bert", "pytest")
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """Where processes are forked; it starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    yield context
    multiprocessing.forkserver._forkserver._stop()


@dataclass
class Started:
    """A command that was started: its process, and the files that it prints into."""

    typed: list[str]
    process: Any
    out: Path
    error: Path

    def end(self) -> Done:
        """Waits for its end."""
        try:
            code = self.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return Done(self.typed, code, self.out.read_text(), self.error.read_text())

    # As subprocess.Popen:

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def poll(self) -> int | None:
        return self.process.exitcode  # type: ignore[no-any-return]

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if (code := self.poll()) is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.typed, timeout, self.out.read_text(), self.error.read_text())
        return code

    def kill(self) -> None:
        self.process.kill()

    def terminate(self) -> None:
        self.process.terminate()


@dataclass
class Command:
    """command("train.py", "hardware=cpu", …): what `python train.py hardware=cpu …` does in REPO, or in `cwd`.

    More keywords are environment variables, PYTHONPATH among them.
    """

    server: Any
    printed: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __call__(self, script: str, *words: object, cwd: Path = REPO, **more: str) -> Done:
        return self.start(script, *words, cwd=cwd, **more).end()

    def start(self, script: str, *words: object, cwd: Path = REPO, **more: str) -> Started:
        typed, number = [str(REPO / script), *map(str, words)], next(self.numbers)
        out, error = self.printed / f"{number}.out", self.printed / f"{number}.error"
        return self._started(typed, out, error, cwd, {**os.environ, **more})

    def popen(self, words: list[str], stdout: Any, cwd: Path, env: dict[str, str], **_: Any) -> Started:
        """subprocess.Popen(words, …, start_new_session=True) for [python, script, …], both outputs in the file `stdout`."""
        return self._started(words[1:], Path(stdout.name), Path(stdout.name), cwd, env, session=True)

    def _started(
        self, typed: list[str], out: Path, error: Path, cwd: Path, environment: dict[str, str], session: bool = False
    ) -> Started:
        process = self.server.Process(target=_run, args=(typed, out, error, cwd, environment, session))
        process.start()
        return Started(typed, process, out, error)


@pytest.fixture(scope="session")
def command(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(server, tmp_path_factory.mktemp("printed"))


def _run(typed: list[str], out: Path, error: Path, cwd: Path, environment: dict[str, str], session: bool) -> None:
    if session:
        os.setsid()
    for number, file in enumerate((out, error), start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    _set(environment)
    sys.path[:0] = [str(Path(typed[0]).parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = typed
    os.chdir(cwd)
    _fork_ranks()
    try:
        runpy.run_path(typed[0], run_name="__main__")
    finally:  # as an interpreter ends; multiprocessing waits for children first
        threading._shutdown()
        atexit._run_exitfuncs()


def _fork_ranks() -> None:
    """Ranks are forked off the command that starts them; they stay its children, in its session."""
    import torch.multiprocessing

    torch.multiprocessing.start_processes = functools.partial(
        torch.multiprocessing.start_processes, start_method="fork"
    )


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
