"""Middleware for every request: an id, a log line, metrics, and a response even if the inner code fails.

The middleware is plain ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html), because Starlette's base class copies each
body through a queue. Texts are never logged: customers wrote them.
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mangakd.runtime import metrics

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
QUESTIONS = ("/predict", "/rerank", "/embed", "/rewrite", "/v1/embeddings", "/")  # of routes.py, which a test compares
QUIET = ("/health", "/metrics")  # machines call these every few seconds; only errors are logged
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_FAILED = {"error": "the service failed; its log says why, under the X-Request-Id of this answer."}
log = logging.getLogger("mangakd.service")


class Watch:
    """open: the number of requests in progress. questions: paths that are timed and named; all paths but these, /health and
    /metrics share one label, because clients can invent paths. bounds: of the histogram of seconds.
    """

    def __init__(self, questions: Sequence[str] = QUESTIONS, bounds: tuple[float, ...] = metrics.SECONDS) -> None:
        self.open = 0
        self._questions = frozenset(questions)
        self.requests = metrics.Counter("mangakd_requests_total", "Requests answered, by path and status.")
        self.seconds = metrics.Histogram("mangakd_request_seconds", "Time to answer a question.", bounds)

    def around(self, app: App) -> App:
        async def observe(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
            else:
                await self._observe(app, scope, receive, send)

        return observe

    async def _observe(self, app: App, scope: dict[str, Any], receive: Any, send: Any) -> None:
        name, status, start = _request_id(scope), 0, time.perf_counter()
        scope["mangakd.request_id"] = name  # a rollout chooses by it who answers

        async def send_tagged(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", name)]
            await send(message)

        self.open += 1
        try:
            await app(scope, receive, send_tagged)
        except Exception:
            log.exception("failed", extra={"fields": {"request_id": name.decode()}})
            if not status:
                await _fail(send_tagged)
        finally:
            self.open -= 1
            self._note(scope, name.decode(), status, time.perf_counter() - start)

    def _note(self, scope: dict[str, Any], name: str, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._questions or scope["path"] in QUIET else "other"
        self.requests.add(path=path, status=str(status))
        if path in self._questions:
            self.seconds.observe(seconds)
        if path not in QUIET or status >= 500:
            line = {"request_id": name, "method": scope["method"], "path": path, "status": status}
            log.info("answered", extra={"fields": {**line, "ms": round(1000 * seconds, 2)}})


def _request_id(scope: dict[str, Any]) -> bytes:
    """The caller's id if it is short and plain, because the id goes into a header and into the log; otherwise a new id."""
    value = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")
    return value if _ID.fullmatch(value) else uuid.uuid4().hex.encode()


async def _fail(send: Any) -> None:
    body = json.dumps(_FAILED).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
