"""The HTTP service in front of a language model's engine, in OpenAI's shape, with /health and /metrics as every service has them.

The front checks every question, limits bytes, characters, tokens and the queue, and passes it on (language_proxy.py). So a wrong
question never reaches the engine, and the engine's own port is on 127.0.0.1 alone. Errors are OpenAI's object: 400 a wrong
question, 408 the body does not arrive, 429 the queue is full (Retry-After), 503 shutting down or the engine is not there
(Retry-After), 504 the engine is silent. An error after the first event of a stream is an event itself.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from mangakd.runtime import language_proxy, metrics, openai_api
from mangakd.runtime.client_gone import unless_gone
from mangakd.runtime.language_engine import Engine
from mangakd.runtime.language_manifest import LanguageManifest
from mangakd.runtime.language_metrics import LONG_SECONDS, LanguageMetrics, Record
from mangakd.runtime.language_questions import BODIES, Chat, Completion, EngineRequest, engine_request
from mangakd.runtime.places import Places
from mangakd.runtime.question import Limits, Refused
from mangakd.runtime.request_body import read_body
from mangakd.runtime.responses import json_response, refusal_response
from mangakd.runtime.watch import App, Watch

PATHS = (*BODIES, "/v1/models")
_ROUTES = "POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /health and GET /metrics"
log = logging.getLogger("mangakd.service")


@dataclass(frozen=True)
class LanguageSettings:
    """slots: requests computed together. queue: requests that may wait. most: tokens of an answer. body_seconds: for a body."""

    slots: int = 4
    queue: int = 256
    most: int = 512
    body_seconds: float = 10
    limits: Limits = field(default_factory=Limits)


class LanguageService:
    """The engine with its queue and metrics. draining: new questions are refused; those that are here are answered."""

    def __init__(self, manifest: LanguageManifest, engine: Engine, settings: LanguageSettings):
        self.manifest, self.engine, self.settings, self.draining = manifest, engine, settings, False
        self.places = Places(settings.slots, settings.queue)
        self.http = language_proxy.client()
        self.watch = Watch(PATHS, LONG_SECONDS)
        self.counts = LanguageMetrics()

    @property
    def idle(self) -> bool:
        return not self.watch.open

    @property
    def status(self) -> str:
        return "draining" if self.draining else "ready" if self.engine.address else "restarting"

    async def answer(self, path: str, request: Request, send: Any) -> None:
        """Raises Refused."""
        record = Record(self.counts)
        if self.draining:
            raise Refused(503, "the service is shutting down; ask another one.")
        with self.places.admit():
            settings = self.settings
            body = await read_body(request, settings.limits, settings.body_seconds)
            question = engine_request(path, body, settings.limits, settings.most, self.manifest.chat)
            del body  # the question holds its own
            try:
                await unless_gone(request.receive, self._compute(question, send, record))
            except TimeoutError:
                log.warning("a client took nothing for %g s and was cut off", language_proxy.SEND_SECONDS)

    async def _compute(self, question: EngineRequest, send: Any, record: Record) -> None:
        async with self.places.compute():
            if self.engine.address is None:
                raise Refused(503, "the engine is restarting; try again.")
            await language_proxy.forward(self.http, self.engine.address, question, send, record)

    def metrics(self) -> str:
        info = {"variant": self.manifest.variant, "backend": self.manifest.engine, "kind": "tokens"}
        counts, watch = self.counts, self.watch
        answers = (counts.texts, counts.prompt, counts.generated, counts.first)
        return metrics.page(
            *(family.lines() for family in (watch.requests, watch.seconds, *answers, self.engine.restarts)),
            metrics.gauge("mangakd_queue_texts", "Texts waiting now.", self.places.waiting),
            metrics.gauge("mangakd_computing_texts", "Texts computed now.", self.places.computing),
            metrics.gauge(
                "mangakd_ready", "1, or 0 while shutting down or without its engine.", self.status == "ready"
            ),
            metrics.gauge("mangakd_model_info", "The student that is served.", 1, **info),
        )


def create_language_app(
    service: LanguageService, around: Callable[[LanguageService], Callable[[App], App]] | None = None
) -> FastAPI:
    """around: of the service, middleware that stands before it, as a rollout does."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.http.aclose()

    app = FastAPI(title="mangakd", description=__doc__.partition("\n")[0], lifespan=lifespan)
    app.state.service = service
    variant = service.manifest.variant

    @app.get("/v1/models")
    async def models() -> Response:
        model = {"id": variant, "object": "model", "created": 0, "owned_by": "mangakd"}
        return json_response({"object": "list", "data": [model]})

    @app.get("/health")
    @app.head("/health", include_in_schema=False)
    async def health() -> Response:
        status = service.status
        return json_response({"status": status, "variant": variant}, 200 if status == "ready" else 503)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        content = openai_api.error(Refused(error.status_code, f"{error.detail}; there are {_ROUTES}."))[1]
        return json_response(content, error.status_code, dict(error.headers or {}))

    @app.post("/v1/chat/completions")
    async def chat(question: Chat) -> None:
        """For /docs: `_direct` answers."""

    @app.post("/v1/completions")
    async def complete(question: Completion) -> None:
        """For /docs: `_direct` answers."""

    app.add_middleware(_direct, service=service)
    if around is not None:
        app.add_middleware(around(service))
    app.add_middleware(service.watch.around)  # the last middleware is the outermost
    return app


def _direct(rest: App, service: LanguageService) -> App:
    """Questions get the plain connection: an answer is written as it comes, and its client is watched."""

    async def ask(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in BODIES:
            await rest(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            await service.answer(scope["path"], request, send)
        except Refused as error:
            response = refusal_response(error, *openai_api.error(error))
            await response(scope, receive, send)

    return ask
