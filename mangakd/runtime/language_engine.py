"""`Engine`: llama.cpp's server as a child process, started again if it dies.

llama.cpp is C++ and may abort its process. In a process of its own it loses only the questions that it computes, and the front
(language_service.py) still answers /health and /metrics. A dead child is started again after 1, 2, 4, 8, 16 seconds. If it dies a
sixth time without 60 seconds of life, the service ends with the reason: an orchestrator can then show the failure and try another
machine.
"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.runtime import metrics

PROGRAM = Path(__file__).with_name("language_child.py")
ATTEMPTS, STABLE = 5, 60.0  # restarts in a row; seconds of life after which the count starts again
START_SECONDS = 600.0  # to read a model from a slow disk
TAIL = 2000  # bytes of the child's last errors that are kept
log = logging.getLogger("mangakd.service")


class Engine:
    """settings: of language_child.parameters. address: of the child's server; None while it is not there. restarts: a metric.

    failure: why the engine was given up.
    """

    def __init__(self, settings: Mapping[str, Any]):
        self._words = [sys.executable, "-P", str(PROGRAM), json.dumps(dict(settings))]
        self.address: str | None = None
        self.failure = ""
        self.restarts = metrics.Counter("mangakd_engine_restarts_total", "Restarts of the engine after it had died.")
        self.restarts.add(0)  # shown from the start
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child and wait until it serves. Raises UserError with the child's last line if it cannot."""
        pipe = asyncio.subprocess.PIPE
        # A session of its own: Ctrl-C in a terminal reaches the parent alone.
        self._process = process = await asyncio.create_subprocess_exec(
            *self._words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        assert process.stderr is not None
        self._reader = asyncio.create_task(_tail(process.stderr))
        try:
            async with asyncio.timeout(START_SECONDS):
                self.address = await _address(process)
        except TimeoutError:
            process.kill()
        except BaseException:
            process.kill()
            raise
        if self.address is None:
            await process.wait()
            raise UserError(f"llama.cpp cannot serve the model: {await self._reason(process)}")

    async def keep(self) -> None:
        """Start the child again whenever it dies. Returns when it was given up, with `failure`."""
        attempts, begin = 0, time.monotonic()
        while self._process is not None:
            await self._process.wait()
            self.address = None
            attempts = 1 if time.monotonic() - begin > STABLE else attempts + 1
            reason = await self._reason(self._process)
            if attempts > ATTEMPTS:
                self.failure = f"llama.cpp died {attempts} times in a row: {reason}"
                return
            pause = 2.0 ** (attempts - 1)
            log.error("engine died", extra={"fields": {"reason": reason, "restart_in_seconds": pause}})
            await asyncio.sleep(pause)
            begin = time.monotonic()
            self.restarts.add()
            with contextlib.suppress(UserError):  # the loop counts and logs it
                await self.start()
                log.info("engine restarted", extra={"fields": {"pid": self.pid}})

    async def stop(self) -> None:
        """End the child: it exits when its stdin closes."""
        if self._process is None or self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _reason(self, process: asyncio.subprocess.Process) -> str:
        """The last line of stderr, which holds no texts at verbosity 0, or how the process ended."""
        assert self._reader is not None
        lines = (await self._reader).decode("utf-8", "replace").strip().splitlines()
        code = process.returncode or 0
        end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"{lines[-1].strip()} ({end})" if lines else end


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """The last bytes of a stream, once it has ended."""
    tail = b""
    while chunk := await stream.read(TAIL):
        tail = (tail + chunk)[-TAIL:]
    return tail


async def _address(process: asyncio.subprocess.Process) -> str | None:
    """The first line of stdout that is an address; None if the child ends without it."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if line.startswith(b"http://"):
            return line.decode("ascii").strip()
    return None
