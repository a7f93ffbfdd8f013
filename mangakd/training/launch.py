"""One process for each device of a profile: started here, or found to be started by torchrun or SLURM.

Here: torch.multiprocessing starts them, brings the others down when one dies, and stops them when this process dies; what is
added is signals handed on, and the error of the rank that failed first.
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
FRAMES = 12  # of a traceback that is told: the pipe that all ranks share holds 64 kB
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of ranks that have written a checkpoint
Explain = Callable[[BaseException], str | None]


class RankDied(UserError):
    """What brought a run of several processes down; a bug comes with its traceback."""


def started() -> int:
    """Processes of this run that torchrun or srun started; 1 where neither did."""
    _name_slurm_as_torchrun_does()
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def _name_slurm_as_torchrun_does() -> None:
    """Under srun. In an sbatch script and in a shell of salloc SLURM_NTASKS is set, too, though one process runs there."""
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
    env.setdefault("MASTER_PORT", str(15_000 + step % 10_000))  # steps side by side on a node have different ones


def join(hardware: Hardware) -> bool:
    """Joins the others where torchrun or srun started them; whether it did.

    Raises UserError where they are not as many as the profile has devices, or where several machines or tasks are wanted
    and neither of them started this process.
    """
    world = started()
    if world == 1:
        _check_alone(hardware)
        return False
    if world != hardware.world:
        raise UserError(
            f"torchrun or srun started {world} processes (WORLD_SIZE), but the hardware profile has {hardware.devices} devices × "
            f"{hardware.nodes} nodes. Start {hardware.world}, choose another profile (hardware=…), or set hardware.devices and "
            "hardware.nodes."
        )
    ranks.start(hardware.backend)
    return True


def _check_alone(hardware: Hardware) -> None:
    if hardware.nodes > 1:
        words = command_words("train")
        started = " ".join(words[1:] if words[0] == "python" else ["-m", *words])
        raise UserError(
            f"hardware.nodes={hardware.nodes}: several machines are started by torchrun or srun, on each of them. "
            f"torchrun --nnodes={hardware.nodes} --nproc-per-node={hardware.devices} --rdzv-backend=c10d "
            f"--rdzv-endpoint=<first host>:29500 {started} …; docs/how-to/hardware.md has both commands."
        )
    tasks = int(os.environ.get("SUBMITIT_LOCAL_NTASKS", 1))
    if tasks > 1:
        raise UserError(
            f"hydra.launcher.tasks_per_node={tasks}: submitit's local executor would run the whole job {tasks} times. Leave it "
            "at 1; the job starts a process for each device by itself."
        )


def start(work: Callable[..., None], args: tuple[Any, ...], hardware: Hardware, folder: Path, explain: Explain) -> None:
    """Run work(*args) in a process for each device and wait for them.

    explain: an error that a user can mend → its message. Raises RankDied, within about 30 seconds of a rank's death, and
    SystemExit when a signal has stopped the run, which rank 0 tells by itself.
    """
    told = multiprocessing.get_context("spawn").SimpleQueue()
    # Ranks find each other through this process, at a port that the system chose: no other run can take it in between.
    book = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = torch.multiprocessing.start_processes(
        _process, (work, args, hardware, book.port, explain, told), hardware.devices, join=False
    )
    assert context is not None
    with _Children(context) as children:
        failed = children.first_failure()
    if failed is None:
        return
    rank, code = failed
    if code in STOPPED or (children.received and code < 0):  # the latter before training, with nothing to save yet
        raise SystemExit(128 + children.received if children.received else code)
    raise _death(rank, code, told, folder)


class _Children:
    """The ranks' processes. Signals that this process gets go to all of them as SIGTERM; it waits for their checkpoint."""

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
        """(rank, exit code), when one has failed; None when all have succeeded.

        Of several at once the one that was killed: the others fail because it is gone.
        """
        while True:
            codes = [process.exitcode for process in self._processes]
            failed = [(code, rank) for rank, code in enumerate(codes) if code]
            if failed:
                code, rank = min(failed)
                return rank, code
            running = [p.sentinel for p, code in zip(self._processes, codes, strict=True) if code is None]
            if not running:
                return None
            multiprocessing.connection.wait(running)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # something else ended the wait, such as a scheduler's handler of its own signal
            self._terminate()
        with contextlib.suppress(ProcessException):
            while not self._context.join(grace_period=GRACE):
                pass
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _process(
    rank: int, work: Callable[..., None], args: tuple[Any, ...], hardware: Hardware, port: int, explain: Explain,
    told: Any,
) -> None:  # fmt: skip
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(hardware.world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # lightning read RANK on import, before this
    # torch asks the kernel for SIGINT when the parent dies, which comes once for each thread of it: as Ctrl-C pressed twice.
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGTERM)  # type: ignore[attr-defined]
    torch.set_num_threads(max(torch.get_num_threads() // hardware.devices, 1))
    try:
        ranks.start(hardware.backend)
        work(*args)
        ranks.finish()
    except KeyboardInterrupt:  # a second Ctrl-C
        os._exit(128 + signal.SIGINT)
    except Exception as error:
        told.put((time.time(), rank, explain(error) or traceback.format_exc(limit=-FRAMES)))
        if rank > 0:
            traceback.print_exc(file=sys.stdout)  # into its log
        sys.stdout.flush()
        os._exit(1)  # without waiting for a group whose other members may be gone


def _death(rank: int, code: int, told: Any, folder: Path) -> RankDied:
    """What the rank that failed first said; one that was killed could say nothing."""
    log = f"; {folder / 'logs' / f'rank{rank}.log'} is its log" if rank else ""
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return RankDied(
            f"rank {rank} was killed by {name}{memory}{log}. The other ranks were stopped. Go on with resume=auto and "
            f"hydra.run.dir={folder}."
        )
    said = []
    while not told.empty():
        said.append(told.get())
    if not said:
        return RankDied(f"rank {rank} ended with exit code {code}{log}.")
    _, rank, message = min(said)
    return RankDied(f"rank {rank}: {message}")
