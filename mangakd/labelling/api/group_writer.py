"""Writes to a ledger from many requests at a time: those that wait share one transaction, and so one flush to the disk."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mangakd.labelling.ledger import Ledger

GATHER = (
    0.01  # seconds in which writes gather: a flush to the disk takes as long, and costs other requests processor time
)
Write = Callable[[sqlite3.Connection], None]
T = TypeVar("T")


class GroupWriter:
    """All use of the ledger while requests travel: in one thread, so that the event loop never waits for the disk."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pool = ThreadPoolExecutor(1, "ledger")
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._drain: asyncio.Task[None] | None = None

    async def write(self, write: Write) -> None:
        """On the disk when this returns."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._commit_all())
        await done

    async def call(self, function: Callable[[], T]) -> T:
        """A function that uses the ledger, between two transactions."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def close(self) -> None:
        """After all writes."""
        while self._drain is not None and not self._drain.done():
            await asyncio.wait([self._drain])
        self._pool.shutdown()

    async def _commit_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER)
            group, self._waiting = self._waiting, []
            try:
                await self.call(lambda group=group: self._commit([write for write, _ in group]))  # type: ignore[misc]
            except BaseException as error:
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            for _, done in group:
                if not done.done():
                    done.set_result(None)

    def _commit(self, writes: list[Write]) -> None:
        with self._ledger.transaction() as connection:
            for write in writes:
                write(connection)
