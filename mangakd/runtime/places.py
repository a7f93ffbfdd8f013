"""`Places`: how many requests may be computed, how many may wait, and in which order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from mangakd.runtime.question import Refused


class Places:
    """slots: requests computed together. queue: further requests that may wait; then 429.

    A request takes its place before its body is read, so that the bodies in memory are never more than slots + queue.
    waiting, computing: requests now.
    """

    def __init__(self, slots: int, queue: int):
        self._most, self._slots = slots + queue, asyncio.Semaphore(slots)
        self._inside = self.computing = 0

    @property
    def waiting(self) -> int:
        return self._inside - self.computing

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Raises Refused."""
        if self._inside >= self._most:
            raise Refused(429, f"{self.waiting} requests are waiting; try again in a second.")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @contextlib.asynccontextmanager
    async def compute(self) -> AsyncIterator[None]:
        """Wait for a slot; the first that came is the first that gets one."""
        async with self._slots:
            self.computing += 1
            try:
                yield
            finally:
                self.computing -= 1
