"""The HTTP service: POST to the routes of mangakd.runtime.routes, GET /health, GET /metrics (and FastAPI's /docs).

Errors are one sentence in the shape of the route: 400 no JSON in UTF-8, 408 the body does not arrive, 413 too many bytes, 422 no
question or over a limit, 424 a question to another kind of student, 429 the queue is full (Retry-After), 503 shutting down. Every
response has an X-Request-Id: the caller's, if the request has one.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.runtime import metrics
from mangakd.runtime.batcher import SHORT, Batcher, Full
from mangakd.runtime.model import Model
from mangakd.runtime.question import Limits, Refused, parse
from mangakd.runtime.routes import MAIN, ROUTES, Route, path_of
from mangakd.runtime.tokenise import Text
from mangakd.runtime.watch import App, Watch

try:
    from fastapi import FastAPI, Request, Response
    from starlette.exceptions import HTTPException

    from mangakd.runtime.request_body import read_body
    from mangakd.runtime.responses import json_response, refusal_response
except ImportError as error:
    raise UserError(
        f"the service needs fastapi and uvicorn ({error}). Install them with: pip install fastapi uvicorn"
    ) from error


@dataclass(frozen=True)
class Settings:
    """max_batch: texts computed together. queue: texts that may wait. body_seconds: timeout for the arrival of a body.

    aside: compute even a short question beside the event loop, as a model that works in the background must.
    """

    max_batch: int = 32
    queue: int = 256
    body_seconds: float = 10
    aside: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.queue < self.limits.texts:
            raise UserError(
                f"a queue of {self.queue} texts could never take a question of {self.limits.texts}: make the queue longer or "
                "allow fewer texts in a question."
            )


class Service:
    """The model with its queue and metrics. draining: new questions are refused, and waiting questions are answered."""

    def __init__(self, model: Model, settings: Settings):
        self.model, self.settings, self.draining = model, settings, False
        # the time of writing does not depend on the text's length
        short = SHORT if model.manifest.decoding is None and not settings.aside else -1
        self.batcher = Batcher(self._compute, settings.max_batch, settings.queue, short)
        self.watch = Watch()
        self._texts = metrics.Counter("mangakd_texts_total", "Texts answered.")
        self._batches = metrics.Histogram("mangakd_batch_texts", "Texts in a computed batch.", metrics.SIZES)

    @property
    def idle(self) -> bool:
        return not (self.watch.open or self.batcher.waiting or self.batcher.computing)

    async def answer(self, route: Route, request: Request) -> Any:
        """The content of the response. Raises Refused."""
        if self.draining:
            raise Refused(503, "the service is shutting down; ask another one.")
        limits = self.settings.limits
        body = await read_body(request, limits, self.settings.body_seconds)
        question = route.question(parse(body, limits), self.model, limits)
        try:
            rows = await self.batcher.submit(question.texts)
        except Full:
            raise Refused(429, f"{self.batcher.waiting} texts are waiting; try again in a second.") from None
        self._texts.add(len(rows))
        return question.answer(self.model, rows)

    def metrics(self) -> str:
        about = self.model.manifest
        info = {"variant": about.variant, "backend": about.backend, "kind": about.head.kind}
        return metrics.page(
            *(family.lines() for family in (self.watch.requests, self.watch.seconds, self._texts, self._batches)),
            metrics.gauge("mangakd_queue_texts", "Texts waiting now.", self.batcher.waiting),
            metrics.gauge("mangakd_computing_texts", "Texts computed now.", self.batcher.computing),
            metrics.gauge("mangakd_ready", "1, or 0 while shutting down.", 0 if self.draining else 1),
            metrics.gauge("mangakd_model_info", "The student that is served.", 1, **info),
        )

    def _compute(self, texts: list[Text]) -> np.ndarray:
        rows = self.model.outputs(texts, self.settings.max_batch)
        if not np.isfinite(rows).all():
            raise FloatingPointError("the model gave numbers that are not finite")
        self._batches.observe(len(texts))
        return rows


async def respond(service: Service, path: str, request: Request) -> Response:
    """The response to a question. path: of ROUTES."""
    route = ROUTES[path]
    try:
        return json_response(await service.answer(route, request))
    except Refused as error:
        return refusal_response(error, *route.error(error))


def create_app(
    model: Model, settings: Settings | None = None, around: Callable[[Service], Callable[[App], App]] | None = None
) -> FastAPI:
    """`app.state.service` is its Service. around: of the Service, middleware that stands before it, as a rollout does."""
    service = Service(model, settings or Settings())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.batcher.stop()

    app = FastAPI(title="mangakd", description=__doc__.partition("\n")[0], lifespan=lifespan)
    app.state.service = service

    async def answer(path: str, request: Request) -> Response:
        return await respond(service, path, request)

    for path, route in ROUTES.items():
        content = {"application/json": {"schema": route.schema}}
        app.add_api_route(
            path, partial(answer, path), methods=["POST"], name=path,
            openapi_extra={"requestBody": {"required": True, "content": content}},
        )  # fmt: skip

    @app.get("/health")
    @app.head("/health", include_in_schema=False)
    async def health() -> Response:
        status = "draining" if service.draining else "ready"
        return json_response({"status": status, "variant": model.manifest.variant}, 503 if service.draining else 200)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        message = f"{error.detail}; there are POST {MAIN[model.use]}, GET /health and GET /metrics."
        return json_response({"error": message}, error.status_code, dict(error.headers or {}))

    def direct(rest: App) -> App:
        """Bypass FastAPI's router for questions: the router takes longer than the rest of the event loop's work."""

        async def ask(scope: dict[str, Any], receive: Any, send: Any) -> None:
            asks = scope["type"] == "http" and scope["method"] == "POST"
            if asks and (path := path_of(scope["path"], model)) is not None:
                response = await respond(service, path, Request(scope, receive))
                await response(scope, receive, send)
            else:
                await rest(scope, receive, send)

        return ask

    app.add_middleware(direct)
    if around is not None:
        app.add_middleware(around(service))
    app.add_middleware(service.watch.around)  # the last middleware is the outermost
    return app
