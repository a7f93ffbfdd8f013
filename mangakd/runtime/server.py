"""Runs the service under uvicorn, and ends it without losing a question.

SIGTERM or Ctrl-C: /health says 503 and new questions are refused at once; what waits is answered; the port stays open for
`linger` seconds, in which load balancers notice; then the process ends with 0. A second signal ends it now, and so do PATIENCE
seconds: a client that never reads its answer must not hold the process for ever.
"""

import time
from types import FrameType
from typing import Any

import uvicorn

from mangakd.runtime.model import Model
from mangakd.runtime.service import Service, Settings, create_app

PATIENCE = 30  # seconds; longer than any question that a full queue may hold should take


class Server(uvicorn.Server):
    """uvicorn closes its port on the first signal and counts connections, not questions; this one drains first."""

    def __init__(self, config: uvicorn.Config, service: Service, linger: float):
        super().__init__(config)
        self._service, self._linger, self._asked = service, linger, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True
        self._service.draining, self._asked = True, time.monotonic()

    async def on_tick(self, counter: int) -> Any:
        """uvicorn calls it ten times a second; True ends the main loop."""
        over = time.monotonic() - self._asked - self._linger
        if self._service.draining and (over >= PATIENCE or (over >= 0 and self._service.idle)):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(model: Model, settings: Settings, host: str, port: int, linger: float) -> None:
    """Until a signal comes. port 0 takes a free one, which the log names."""
    app = create_app(model, settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="h11",  # httptools, which uvicorn prefers, is faster and reads headers without end
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing reads the client's address
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    Server(config, app.state.service, linger).run()
