"""Computes a question at once if the model is idle, and collects questions into a batch only while a batch is computed.

One thread computes the batches, so that the event loop accepts questions meanwhile. The event loop's own thread computes a short
question that comes alone: a switch to another thread and back would take a tenth of the question's time on an idle machine, and
several times as much on a busy machine. One short text blocks the event loop meanwhile.

When `capacity` texts wait, further questions are refused at once: an early refusal is more useful to a caller than an answer
after the caller's timeout.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from mangakd.runtime.tokenise import Text, characters

SHORT = 256  # characters of a question that may block the event loop, about 60 tokens


class Full(Exception):
    """The queue is full."""


@dataclass
class _Job:
    texts: list[Text]
    rows: "asyncio.Future[np.ndarray]"


class Batcher:
    """compute: texts → (N, C) rows; called once at a time. waiting, computing: numbers of texts. short: see SHORT; -1 where even
    one word takes long.
    """

    def __init__(self, compute: Callable[[list[Text]], np.ndarray], max_batch: int, capacity: int, short: int = SHORT):
        self._compute, self._max_batch, self._capacity, self._short = compute, max_batch, capacity, short
        self._jobs: deque[_Job] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.waiting = self.computing = 0

    def stop(self) -> None:
        self._jobs.clear()
        self._thread.shutdown()

    async def submit(self, texts: list[Text]) -> np.ndarray:
        """The rows of `texts`. Raises Full, or the exception of the model."""
        if self.waiting + len(texts) > self._capacity:
            raise Full
        loop = asyncio.get_running_loop()
        job = _Job(texts, loop.create_future())
        if not (self._jobs or self.computing):
            loop.call_soon(self._begin)  # runs after the questions that have already arrived
        self._jobs.append(job)
        self.waiting += len(texts)
        return await job.rows

    def _begin(self) -> None:
        jobs = self._take()
        if len(jobs) == 1 and sum(map(characters, jobs[0].texts)) <= self._short:
            self._compute_here(jobs)
        else:
            self._compute_aside(jobs)

    def _compute_here(self, jobs: list[_Job]) -> None:
        rows: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        try:
            rows.set_result(self._compute(jobs[0].texts))
        except Exception as error:
            rows.set_exception(error)
        self._answer(jobs, rows)

    def _compute_aside(self, jobs: list[_Job]) -> None:
        texts = [text for job in jobs for text in job.texts]
        rows = asyncio.get_running_loop().run_in_executor(self._thread, self._compute, texts)
        rows.add_done_callback(partial(self._answer, jobs))

    def _take(self) -> list[_Job]:
        """Take whole questions in order of arrival, up to max_batch texts. A larger question is a batch of its own."""
        jobs = [self._jobs.popleft()]
        self.computing = len(jobs[0].texts)
        while self._jobs and self.computing + len(self._jobs[0].texts) <= self._max_batch:
            jobs.append(self._jobs.popleft())
            self.computing += len(jobs[-1].texts)
        self.waiting -= self.computing
        return jobs

    def _answer(self, jobs: Sequence[_Job], rows: "asyncio.Future[np.ndarray]") -> None:
        """Start the next batch, then distribute the rows. The next batch is computed while the answers are written."""
        self.computing = 0
        if self._jobs:
            self._compute_aside(self._take())
        error, start = rows.exception(), 0
        for job in jobs:
            end = start + len(job.texts)
            if job.rows.done():  # the client has disconnected
                pass
            elif error:
                job.rows.set_exception(error)
            else:
                job.rows.set_result(rows.result()[start:end])
            start = end
