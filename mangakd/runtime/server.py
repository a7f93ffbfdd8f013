"""Runs the service under uvicorn, and stops without losing a question.

On SIGTERM or Ctrl-C /health returns 503, new questions are refused at once and waiting questions are answered. The port stays
open for `linger` seconds, in which load balancers notice; then the process exits with 0. A second signal stops the process at
once. So do `patience` seconds, because a client that never reads its answer must not block the exit.
"""

import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import uvicorn

from mangakd.runtime.drain import GRACE, PATIENCE
from mangakd.runtime.model import Model
from mangakd.runtime.service import Service, Settings, create_app
from mangakd.runtime.watch import App


class Drainable(Protocol):
    """draining: new questions are refused. idle: nothing is left to answer."""

    draining: bool

    @property
    def idle(self) -> bool: ...


class Server(uvicorn.Server):
    """Answers waiting questions before it stops. uvicorn's Server closes its port on the first signal and counts connections."""

    def __init__(self, config: uvicorn.Config, service: Drainable, linger: float, patience: float = PATIENCE):
        super().__init__(config)
        self._service, self._linger, self._patience, self._stop_time = service, linger, patience, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True
        self._service.draining, self._stop_time = True, time.monotonic()

    async def on_tick(self, counter: int) -> Any:
        """uvicorn calls on_tick ten times a second; True ends the main loop."""
        over = time.monotonic() - self._stop_time - self._linger
        if self._service.draining and (over >= self._patience or (over >= 0 and self._service.idle)):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(
    model: Model,
    settings: Settings,
    host: str,
    port: int,
    linger: float,
    patience: float = PATIENCE,
    around: Callable[[Service], Callable[[App], App]] | None = None,
) -> None:
    """Serve until a signal comes. port 0 takes a free port and logs its number. around: as in create_app."""
    app = create_app(model, settings, around)
    Server(config(app, host, port), app.state.service, linger, patience).run()


def config(app: Any, host: str, port: int, grace: int = GRACE) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http="h11",  # httptools, uvicorn's default, is faster but has no limit for headers
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing reads the client's address
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
