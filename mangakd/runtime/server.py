"""Runs the service under uvicorn, and stops without losing a question.

On SIGTERM or Ctrl-C /health returns 503, new questions are refused at once and waiting questions are answered. The port stays
open for `linger` seconds, in which load balancers notice; then the process exits with 0. A second signal stops the process at
once. So do PATIENCE seconds, because a client that never reads its answer must not block the exit.
"""

import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from mangakd.runtime.model import Model
from mangakd.runtime.service import Service, Settings, create_app
from mangakd.runtime.watch import App

PATIENCE = 30  # seconds; longer than a full queue should take


class Server(uvicorn.Server):
    """Answers waiting questions before it stops. uvicorn's Server closes its port on the first signal and counts connections."""

    def __init__(self, config: uvicorn.Config, service: Service, linger: float):
        super().__init__(config)
        self._service, self._linger, self._stop_time = service, linger, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True
        self._service.draining, self._stop_time = True, time.monotonic()

    async def on_tick(self, counter: int) -> Any:
        """uvicorn calls on_tick ten times a second; True ends the main loop."""
        over = time.monotonic() - self._stop_time - self._linger
        if self._service.draining and (over >= PATIENCE or (over >= 0 and self._service.idle)):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(
    model: Model,
    settings: Settings,
    host: str,
    port: int,
    linger: float,
    around: Callable[[Service], Callable[[App], App]] | None = None,
) -> None:
    """Serve until a signal comes. port 0 takes a free port and logs its number. around: as in create_app."""
    app = create_app(model, settings, around)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="h11",  # httptools, uvicorn's default, is faster but has no limit for headers
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing reads the client's address
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    Server(config, app.state.service, linger).run()
