"""Threads that work ahead of a consumer: results come in order, and only a few of them exist at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(make: Callable[[T], R], items: Iterable[T], threads: int, name: str) -> Iterator[R]:
    """make(item) of each item, in their order, two for each thread ahead of the consumer. 0 threads make each on demand.

    Threads, not forked processes: a fork would hold copies of other libraries' objects without the threads that these objects
    need. Freeing an ONNX Runtime session there is a segmentation fault, and freeing an OpenVINO model waits for ever.
    """
    if not threads:
        yield from map(make, items)
        return
    pool, pending = ThreadPoolExecutor(threads, name), deque[Future[R]]()
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        pool.shutdown(wait=False)  # its threads end when the last result is made
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
