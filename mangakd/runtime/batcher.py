"""Questions that arrive at about the same time are computed as one batch, by one thread, from a queue with an end.

A question waits until `max_batch` texts have come together or `max_wait` seconds have passed, whichever is first; while a batch
is computed, the next one gathers. When `capacity` texts wait, further questions are refused at once: an answer that says "later"
in a millisecond is worth more to a caller than one that comes after its patience.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np


class Full(Exception):
    """The queue has no room for these texts now."""


@dataclass
class _Job:
    texts: list[str]
    rows: "asyncio.Future[np.ndarray]"


class Batcher:
    """compute: texts → (N, C) rows; called in a thread of its own, never twice at a time."""

    def __init__(self, compute: Callable[[list[str]], np.ndarray], max_batch: int, max_wait: float, capacity: int):
        self._compute, self._max_batch, self._max_wait, self._capacity = compute, max_batch, max_wait, capacity
        self._jobs: deque[_Job] = deque()
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None
        self.waiting = self.computing = 0  # texts

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def submit(self, texts: list[str]) -> np.ndarray:
        """The rows of `texts`. Raises Full, or whatever the model raised."""
        if self.waiting + len(texts) > self._capacity:
            raise Full
        job = _Job(texts, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += len(texts)
        self._arrived.set()
        if self.waiting >= self._max_batch:
            self._enough.set()
        return await job.rows

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), self._max_wait)
            await self._answer(self._take())

    def _take(self) -> list[_Job]:
        """Whole questions, first come first served, up to max_batch texts; a larger one goes alone."""
        jobs = [self._jobs.popleft()]
        self.computing = len(jobs[0].texts)
        while self._jobs and self.computing + len(self._jobs[0].texts) <= self._max_batch:
            jobs.append(self._jobs.popleft())
            self.computing += len(jobs[-1].texts)
        self.waiting -= self.computing
        if not self._jobs:
            self._arrived.clear()
        if self.waiting < self._max_batch:
            self._enough.clear()
        return jobs

    async def _answer(self, jobs: list[_Job]) -> None:
        texts = [text for job in jobs for text in job.texts]
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, texts)
        except Exception as error:
            for job in jobs:
                if not job.rows.done():  # done: its client has gone
                    job.rows.set_exception(error)
        else:
            for job in jobs:
                own, rows = rows[: len(job.texts)], rows[len(job.texts) :]
                if not job.rows.done():
                    job.rows.set_result(own)
        finally:
            self.computing = 0
