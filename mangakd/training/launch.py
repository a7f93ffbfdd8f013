"""One process for each device of a profile. torchrun or SLURM has started the processes, or `start` starts them.

`start` uses torch.multiprocessing, which stops all processes when one process or the parent dies. `start` adds two things: it
forwards signals to the processes, and it reports the error of the rank that failed first.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.multiprocessing
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.fabric.utilities import rank_zero_only
from torch.multiprocessing.spawn import ProcessException

from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.invocation import command_words
from mangakd.training.hardware import Hardware

GRACE = 15.0  # seconds for the other ranks to end by themselves, and again after SIGTERM, before SIGKILL
FRAMES = 12  # of a reported traceback: the ranks share a pipe of 64 kB
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of ranks that have written a checkpoint
Explain = Callable[[BaseException], str | None]


class RankDied(UserError):
    """The error of the rank that stopped a run of several processes; for a bug, its traceback."""


def launcher_processes() -> int:
    """The number of processes that torchrun or srun started for this run; 1 without a launcher."""
    _name_slurm_as_torchrun_does()
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def _name_slurm_as_torchrun_does() -> None:
    """Set torchrun's variables under srun. sbatch and salloc set SLURM_NTASKS for one process, too; only srun sets the step's."""
    env = os.environ
    if "RANK" in env or int(env.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return
    step = 10 * int(env["SLURM_JOB_ID"]) + int(env.get("SLURM_STEP_ID", 0))
    env |= {
        "RANK": env["SLURM_PROCID"],
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "NODE_RANK": env["SLURM_NODEID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
    }
    env.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(env["SLURM_STEP_NODELIST"]))
    env.setdefault("MASTER_PORT", str(15_000 + step % 10_000))  # parallel steps on a node need different ports


def join(hardware: Hardware, command: str = "train") -> bool:
    """Join the other processes if torchrun or srun started this process; returns whether a launcher started it.

    command: its name, for messages.
    Raises UserError if the profile has another number of devices, or if several machines or tasks need a launcher and none
    started this process.
    """
    world = launcher_processes()
    if world == 1:
        _check_alone(hardware, command)
        return False
    if world != hardware.world:
        raise UserError(
            f"torchrun or srun started {world} processes (WORLD_SIZE), but the hardware profile has {hardware.devices} devices × "
            f"{hardware.nodes} nodes. Start {hardware.world}, choose another profile (hardware=…), or set hardware.devices and "
            "hardware.nodes."
        )
    ranks.start(hardware.backend)
    return True


def _check_alone(hardware: Hardware, command: str) -> None:
    if hardware.nodes > 1:
        words = command_words(command)
        program = " ".join(words[1:] if words[0] == "python" else ["-m", *words])
        raise UserError(
            f"hardware.nodes={hardware.nodes}: several machines need torchrun or srun on each machine. "
            f"torchrun --nnodes={hardware.nodes} --nproc-per-node={hardware.devices} --rdzv-backend=c10d "
            f"--rdzv-endpoint=<first host>:29500 {program} …; docs/how-to/hardware.md has both commands."
        )
    tasks = int(os.environ.get("SUBMITIT_LOCAL_NTASKS", 1))
    if tasks > 1:
        raise UserError(
            f"hydra.launcher.tasks_per_node={tasks}: submitit's local executor would run the whole job {tasks} times. Set "
            "1; the job itself starts a process for each device."
        )


def start(
    work: Callable[..., None], args: tuple[Any, ...], hardware: Hardware, folder: Path | None, explain: Explain
) -> None:
    """Run work(*args) in a process for each device and wait for all processes.

    folder: of the run, for messages; None for a command without a run folder, which resumes when it is started again.
    explain: an error → its message for the user, None for a bug. Raises RankDied within about 30 seconds of a rank's death.
    Raises SystemExit if a signal has stopped the run; rank 0 has reported the stop.
    """
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    # This process hosts the ranks' store at a port that the system chose, so no other run can take the port before they start.
    book = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = torch.multiprocessing.start_processes(
        _process, (work, args, hardware, book.port, explain, queue), hardware.devices, join=False
    )
    assert context is not None
    with _Children(context) as children:
        failure = children.first_failure()
    if failure is None:
        return
    rank, code = failure
    if code in STOPPED or (children.received and code < 0):  # code < 0: stopped before training, without a checkpoint
        raise SystemExit(128 + children.received if children.received else code)
    raise _death(rank, code, queue, folder)


class _Children:
    """The ranks' processes. Forwards this process's signals to all ranks as SIGTERM, and waits for their checkpoint."""

    def __init__(self, context: Any) -> None:
        self._context, self._processes = context, context.processes
        self._previous: dict[int, Any] = {}
        self.received = 0

    def __enter__(self) -> "_Children":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._hand_on)
        return self

    def _hand_on(self, number: int, frame: Any) -> None:
        self.received = self.received or number
        self._terminate()

    def _terminate(self) -> None:
        for process in self._processes:
            if process.is_alive():
                process.terminate()

    def first_failure(self) -> tuple[int, int] | None:
        """Wait for (rank, exit code) of the first rank that fails; None if all ranks succeed.

        Of several failures at once, returns a rank that was killed: the other ranks fail because that rank is gone.
        """
        while True:
            codes = [process.exitcode for process in self._processes]
            failure = [(code, rank) for rank, code in enumerate(codes) if code]
            if failure:
                code, rank = min(failure)
                return rank, code
            running = [p.sentinel for p, code in zip(self._processes, codes, strict=True) if code is None]
            if not running:
                return None
            multiprocessing.connection.wait(running)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # an exception ended the wait, for example from a scheduler's signal handler
            self._terminate()
        with contextlib.suppress(ProcessException):
            while not self._context.join(grace_period=GRACE):
                pass
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _process(
    rank: int, work: Callable[..., None], args: tuple[Any, ...], hardware: Hardware, port: int, explain: Explain,
    queue: Any,
) -> None:  # fmt: skip
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(hardware.world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # lightning read RANK on import, before this
    # torch requests SIGINT on the parent's death. The kernel sends one per thread of the parent, like pressing Ctrl-C twice.
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGTERM)  # type: ignore[attr-defined]
    torch.set_num_threads(max(torch.get_num_threads() // hardware.devices, 1))
    try:
        ranks.start(hardware.backend)
        work(*args)
        ranks.finish()
    except KeyboardInterrupt:  # a second Ctrl-C
        os._exit(128 + signal.SIGINT)
    except Exception as error:
        queue.put((time.time(), rank, explain(error) or traceback.format_exc(limit=-FRAMES)))
        if rank > 0:
            traceback.print_exc(file=sys.stdout)  # into its log
        sys.stdout.flush()
        os._exit(1)  # a regular exit would wait for the process group, whose other members may be gone


def _death(rank: int, code: int, queue: Any, folder: Path | None) -> RankDied:
    """The error of the rank that failed first. A killed rank has sent no message."""
    log = f"; {folder / 'logs' / f'rank{rank}.log'} is its log" if rank and folder else ""
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        again = (
            f"Resume with resume=auto and hydra.run.dir={folder}" if folder else "To resume, start the command again"
        )
        return RankDied(f"rank {rank} was killed by {name}{memory}{log}. The other ranks were stopped. {again}.")
    messages = []
    while not queue.empty():
        messages.append(queue.get())
    if not messages:
        return RankDied(f"rank {rank} ended with exit code {code}{log}.")
    _, rank, message = min(messages)
    return RankDied(f"rank {rank}: {message}")
