"""Communication between the processes of one run. With one process, all functions do nothing.

Training uses the strategy's group (NCCL on GPUs). Waits that may take hours, such as for the rank that fine-tunes the teacher,
use a second group on gloo, whose timeout is a week. If a rank dies, its connection closes and the other ranks fail at once.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch.distributed as dist

T = TypeVar("T")
PATIENCE = timedelta(days=7)

_control: Any = None
_joins = 0  # number of runs that this process has joined


def start(backend: str) -> None:
    """Join the run that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe."""
    global _control, _joins
    _joins += 1
    store, own, count = next(dist.rendezvous("env://"))
    # torchrun has one store for restarted ranks and for all jobs of a sweep. The prefix hides the addresses of earlier jobs.
    fresh = dist.PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_joins}", store)
    dist.init_process_group(backend, store=fresh, rank=own, world_size=count)
    _control = dist.new_group(backend="gloo", timeout=PATIENCE)


def finish() -> None:
    global _control
    if dist.is_initialized():
        os.environ["WORLD_SIZE"] = str(
            world()
        )  # Lightning deletes WORLD_SIZE after a fit, but the next job of a sweep needs it
        dist.destroy_process_group()
    _control = None


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """The rank on this machine, which is the number of the device."""
    return int(os.environ.get("LOCAL_RANK", 0)) if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    return rank() == 0


def control() -> Any:
    """The gloo group; None with one process."""
    return _control


def wait() -> None:
    """Wait until every rank has called wait."""
    if _control is not None:
        dist.barrier(_control)


def leave_after_first() -> NoReturn:
    """Exit after the first rank has reported an error: torchrun stops all ranks as soon as one exits."""
    with contextlib.suppress(RuntimeError):  # the first rank has closed the connection
        wait()
    raise SystemExit(1)


def share(value: T) -> T:
    """Broadcast the first rank's value to all ranks."""
    if _control is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def collect(value: T) -> list[T]:
    """Every rank's value, in the order of the ranks, on the first rank; nothing on the others."""
    if _control is None:
        return [value]
    values: list[Any] | None = [None] * world() if is_first() else None
    dist.gather_object(value, values, dst=0, group=_control)
    return values or []


def exchange(value: T) -> list[T]:
    """Every rank's value, in the order of the ranks, on all ranks. Works in a group that Lightning has made, too."""
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value, group=_control)
    return values


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """Context that the first rank runs first, and the other ranks afterwards. The others then find its files on the disk."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()
