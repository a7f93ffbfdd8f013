"""SIGINT and SIGTERM while requests travel: the first asks for a clean stop, the second ends at once."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import TracebackType

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Only the main thread can receive signals; in others this does nothing."""

    def __init__(self, first: Callable[[int], object], second: Callable[[], object]) -> None:
        self._first, self._second = first, second
        self._count = 0

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in NUMBERS:
                loop.add_signal_handler(number, self._receive, number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in NUMBERS:
            with contextlib.suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(number)

    def _receive(self, number: int) -> None:
        self._count += 1
        if self._count == 1:
            print(
                "stopping: waiting for the answers of requests that are on their way; once more ends at once",
                flush=True,
            )
            self._first(number)
        else:
            self._second()
