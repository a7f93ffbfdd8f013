"""One start of train.py for kills.py, and the kills that end the start."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kills_check import Rows, processes, read_progress, read_rows
from kills_recorder import FOLDER

HERE = Path(__file__).resolve().parent
PATIENCE = 300.0  # seconds to start and to reach a step
LEAVE = 45.0  # seconds until nothing of a killed run is left
LAST = "checkpoints/last.ckpt"


class Broken(Exception):
    """A run did not survive, or did not print the expected words."""


class Start:
    """train.py with `words` in a new session. The output goes to a file, because orphans would keep a pipe open.

    folder: of this run and all its starts; the run itself is in folder/run. ranks: training processes. steps: of a whole run.
    """

    def __init__(self, words: list[str], folder: Path, number: int, ranks: int, steps: int) -> None:
        self.run, self._ranks, self._steps = folder / "run", ranks, steps
        self._records, self._log = folder / "records" / f"{number:02}", folder / f"printed-{number:02}.log"
        self._records.mkdir(parents=True)
        modules = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE.parent / "train.py"), f"hydra.run.dir={self.run}", *words],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder,
                env={**os.environ, **quiet, "PYTHONPATH": modules, FOLDER: str(self._records)},
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def processes(self) -> dict[int, int]:
        """rank → process id of the training processes."""
        return processes(self._records)

    @property
    def rows(self) -> Rows:
        return read_rows(self._records, self._steps)

    def reach(self, step: int) -> None:
        """Wait until every rank has received the rows of `step` or of a later step."""
        self.wait(lambda: min(self._at()) >= step, f"reach step {step}")

    def _at(self) -> list[int]:
        at = [round(progress * self._steps) for progress in read_progress(self._records)]
        return at if len(at) == self._ranks else [-1]

    def says(self, words: str) -> None:
        self.wait(lambda: words in self.output, f"say “{words}”")

    def finish(self) -> None:
        self.wait(lambda: self.process.poll() == 0, "finish")

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds. Raises Broken if the process ends earlier, or after PATIENCE seconds."""
        end = time.monotonic() + PATIENCE
        while not until():
            over = self.process.poll() is not None
            if over and until():  # the condition became true and the process ended between two checks
                return
            if over or time.monotonic() > end:
                self.stop()
                why = f"ended with {self.process.returncode}" if over else f"{PATIENCE:.0f} s passed"
                raise Broken(f"{why} and did not {what}: …{self.output[-1500:]}")
            time.sleep(0.01)

    def wait_gone(self) -> None:
        """Wait until all processes of the session have ended."""
        end = time.monotonic() + LEAVE
        while self.process.poll() is None or self._alive():
            if time.monotonic() > end:
                remaining = len(self._alive())
                self.stop()
                raise Broken(f"{LEAVE:.0f} s after its end {remaining} processes were left: …{self.output[-1500:]}")
            time.sleep(0.01)

    def _alive(self) -> list[int]:
        """Running processes of the session."""
        processes = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
            except OSError:  # ended meanwhile
                continue
            processes += [int(file.parent.name)] if int(session) == self.process.pid and state != "Z" else []
        return processes

    def stop(self) -> None:
        for process in self._alive():
            os.kill(process, signal.SIGKILL)
        self.process.wait()


@dataclass
class Blow:
    """A fault at `step`. resumed: the step at which the run resumed. seconds: until all processes ended."""

    what: str
    step: int
    resumed: int
    seconds: float

    @property
    def again(self) -> int:
        """Number of repeated steps."""
        return self.step + 1 - self.resumed

    def describe(self, steps: int) -> str:
        where = f"at step {self.step} of {steps}, went on with step {self.resumed}"
        return f"{self.what} {where}; all of it gone after {self.seconds:.1f} s"


def strike(what: str, start: Start, again: Callable[[], Start], chance: random.Random) -> tuple[Blow, Start]:
    """End `start` and resume at once with `again()`. Raises Broken if one of them does not behave or print as expected."""
    time.sleep(chance.uniform(0, 0.05))
    before, at = start.processes, time.monotonic()
    BLOWS[what](start, chance)
    after = again()
    if what == "slow ranks":
        _let_go(after, before)
    start.wait_gone()
    seconds = time.monotonic() - at
    after.reach(0)
    if "checkpoint" in what:
        after.says("resuming from the previous checkpoint")
    blow = Blow(what, max(start.rows), min(after.rows), seconds)
    if what == "SIGTERM" and blow.again:
        raise Broken(f"SIGTERM after step {blow.step}, but it went on with step {blow.resumed}")
    return blow, after


def _tree(start: Start, chance: random.Random) -> None:
    os.killpg(start.process.pid, signal.SIGKILL)


def _launcher(start: Start, chance: random.Random) -> None:
    start.process.kill()


def _rank(rank: int, start: Start, chance: random.Random) -> None:
    """Kill one rank. The launcher must stop the other ranks and report the killed rank."""
    os.kill(start.processes[rank], signal.SIGKILL)
    start.says(f"rank {rank} was killed by SIGKILL")
    _ends(start, 1)


def _term(start: Start, chance: random.Random) -> None:
    start.process.terminate()
    start.says("stopped by SIGTERM. Go on with")
    _ends(start, 128 + signal.SIGTERM)


def _ends(start: Start, code: int) -> None:
    status = start.process.wait(LEAVE)
    if status != code:
        raise Broken(f"exit code {status}, not {code}: …{start.output[-1500:]}")


def _truncate(start: Start, chance: random.Random) -> None:
    _tree(start, chance)
    start.wait_gone()
    file = start.run / LAST
    os.truncate(file, int(file.stat().st_size * chance.random()))


def _overwrite(start: Start, chance: random.Random) -> None:
    """Overwrite some bytes in the middle, as a disk with a lost block does; the size stays."""
    _tree(start, chance)
    start.wait_gone()
    with (start.run / LAST).open("r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2)
        file.write(chance.randbytes(512))


def _slow(start: Start, chance: random.Random) -> None:
    """Stop the ranks and kill their launcher, as if the ranks were in a long step or wrote to a slow disk."""
    for process in start.processes.values():
        os.kill(process, signal.SIGSTOP)
    start.process.kill()


def _let_go(after: Start, processes: dict[int, int]) -> None:
    after.says("waiting for another run")
    for process in processes.values():
        os.kill(process, signal.SIGCONT)


BLOWS: dict[str, Callable[[Start, random.Random], None]] = {
    "process tree": _tree,
    "process": _launcher,
    "launcher": _launcher,
    "rank 0": partial(_rank, 0),
    "rank 1": partial(_rank, 1),
    "SIGTERM": _term,
    "truncated checkpoint": _truncate,
    "overwritten checkpoint": _overwrite,
    "slow ranks": _slow,
}
