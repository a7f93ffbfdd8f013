"""The processes of one run and what they must agree on. With one process, all of this does nothing.

Training talks through the strategy's own group (NCCL on GPUs). What may take hours, such as waiting for the rank that
fine-tunes the teacher, goes through a second group on gloo, whose timeout is a week; if a rank dies, the others learn it from
the closed connection, at once.
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
_joined = 0  # how often this process has joined a run


def start(backend: str) -> None:
    """Join the run that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe."""
    global _control, _joined
    _joined += 1
    store, own, count = next(dist.rendezvous("env://"))
    # torchrun keeps one store for restarted ranks and for the jobs of a sweep: each must not read the addresses of the last.
    fresh = dist.PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_joined}", store)
    dist.init_process_group(backend, store=fresh, rank=own, world_size=count)
    _control = dist.new_group(backend="gloo", timeout=PATIENCE)


def finish() -> None:
    global _control
    if dist.is_initialized():
        os.environ["WORLD_SIZE"] = str(world())  # Lightning deletes it after a fit; a sweep's next job needs it
        dist.destroy_process_group()
    _control = None


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """This process's place on its machine, which is its device's number."""
    return int(os.environ.get("LOCAL_RANK", 0)) if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    return rank() == 0


def control() -> Any:
    """The second group; None with one process."""
    return _control


def wait() -> None:
    """Until every rank is here."""
    if _control is not None:
        dist.barrier(_control)


def leave_after_first() -> NoReturn:
    """Where the first rank tells what is wrong: torchrun stops all of them as soon as one leaves."""
    with contextlib.suppress(RuntimeError):  # the first has closed the connection
        wait()
    raise SystemExit(1)


def share(value: T) -> T:
    """The first rank's value, on all of them."""
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


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """The first rank does what is inside, leaving it on disk; then the others do it and find it made."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()
