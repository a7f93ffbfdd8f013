"""ASGI middleware before a service: sends each question to the student or to the incumbent.

The student is the service behind the front, whatever app that is; the incumbent is another side (sides.py). A question is a
POST. If the chosen side fails, the other one answers; if both fail, the answer is 503. Everything else goes to the service, whose
/metrics gets the rollout's families. While the service shuts down, it refuses questions itself.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from mangakd.runtime.rollout.asking import Asking
from mangakd.runtime.rollout.compare import Comparer
from mangakd.runtime.rollout.metrics import Families
from mangakd.runtime.rollout.rollout import Rollout
from mangakd.runtime.rollout.sides import AppSide, Question, Reply, Side
from mangakd.runtime.watch import App

SIDE = b"x-mangakd-side"  # header of an answer: who gave it
_OTHER = {"student": "incumbent", "incumbent": "student"}
_NOBODY = "student and incumbent both fail; the service's log says why. Try again in a second."


class Front:
    """student: the app of the service. draining: whether it shuts down. most: bytes of a body that may be asked twice."""

    def __init__(self, student: App, incumbent: Side, rollout: Rollout, draining: Callable[[], bool], most: int):
        self._app, self._rollout, self._draining, self._most = student, rollout, draining, most
        self._asking = Asking({"student": AppSide(student), "incumbent": incumbent}, rollout.settings)
        self._comparer = Comparer(rollout, self._asking, draining)
        self._families = Families(rollout, self._asking, self._comparer)
        self._ticker: asyncio.Task[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, self._around_lifespan(receive), send)
        elif scope["type"] == "http" and scope["method"] == "POST" and not self._draining():
            await self._question(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/metrics":
            await self._metrics(scope, send)
        else:
            await self._app(scope, receive, send)

    async def _question(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        messages = await self._read(scope, receive)
        if messages is None or messages[-1]["type"] != "http.request" or messages[-1].get("more_body"):
            await self._app(scope, _replay(messages or [], receive), send)  # the service refuses it in its own words
            return
        body = b"".join(message.get("body", b"") for message in messages)
        question = Question(scope, body, scope["mangakd.request_id"].decode())
        if streams(body):
            await self._stream(question, receive, send)
            return
        reply, side = await self._answer(question)
        headers = [header for header in reply.headers if header[0].lower() != b"content-length"]
        length = (b"content-length", str(len(reply.body)).encode())
        await send({
            "type": "http.response.start", "status": reply.status, "headers": [*headers, length, (SIDE, side.encode())],
        })  # fmt: skip
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, question: Question) -> tuple[Reply, str]:
        """(answer, the side that gave it)."""
        rollout = self._rollout
        first = rollout.first(question.request_id)
        second = _OTHER[first]
        asked = self._asking.allows(first)
        reply, seconds = await self._asking.ask(first, question) if asked else (None, 0.0)
        if reply is not None:
            rollout.answer(first, seconds, error=False)
            if reply.status == 200 and rollout.compares(first, question.request_id):
                self._comparer.submit(question, reply, second)
            return reply, first
        # Ask even a side with an open breaker: nobody else is left.
        reply, more = await self._asking.ask(second, question)
        if asked:  # an error counts against the student if the incumbent shows that the question can be answered
            rollout.answer(first, seconds, error=True, tested=reply is not None and not self._draining())
        rollout.answer(second, more, error=reply is None, tested=False)
        if reply is None:
            self._families.nobody.add()
            return _refusal(), "none"
        self._families.fallbacks.add(to=second)
        return reply, second

    async def _stream(self, question: Question, receive: Any, send: Any) -> None:
        """As `_answer`, piece by piece. What has been sent is not kept, so streams are not compared."""
        rollout, first = self._rollout, self._rollout.first(question.request_id)
        second = _OTHER[first]
        asked = self._asking.allows(first)
        if asked:
            own = await self._asking.stream(first, question, receive, _marked(send, first))
            if own.gone:
                return
            if own.begun or not own.failed:
                rollout.answer(first, own.seconds, error=own.failed, tested=not self._draining())
                return
        other = await self._asking.stream(second, question, receive, _marked(send, second))
        if asked:
            tested = not other.failed and not other.gone and not self._draining()
            rollout.answer(first, own.seconds, error=True, tested=tested)
        if other.gone:
            return
        rollout.answer(second, other.seconds, error=other.failed, tested=False)
        if other.begun or not other.failed:
            self._families.fallbacks.add(to=second)
            return
        self._families.nobody.add()
        reply = _refusal()
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _read(self, scope: dict[str, Any], receive: Any) -> list[dict[str, Any]] | None:
        """The messages of the body; None before the first. They end early for a body that is too large or does not arrive."""
        messages, size = list[dict[str, Any]](), 0
        try:
            async with asyncio.timeout(self._rollout.settings.timeout):
                while size <= self._most:
                    messages.append(await receive())
                    size += len(messages[-1].get("body", b""))
                    if not messages[-1].get("more_body"):
                        break
        except TimeoutError:
            pass
        return messages or None

    async def _metrics(self, scope: dict[str, Any], send: Any) -> None:
        page = await AppSide(self._app).ask(Question(scope, b"", ""))
        body = page.body + (self._families.page().encode() if page.status == 200 and scope["method"] == "GET" else b"")
        headers = [header for header in page.headers if header[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _around_lifespan(self, receive: Any) -> Any:
        """Start and stop the background work with the app."""

        async def receive_event() -> dict[str, Any]:
            event: dict[str, Any] = await receive()
            if event["type"] == "lifespan.startup":
                self._comparer.start()
                self._ticker = asyncio.create_task(self._tick())
            elif self._ticker is not None:
                self._ticker.cancel()
                await self._comparer.stop()
                self._rollout.close()
                await self._asking.stop()
            return event

        return receive_event

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._rollout.settings.every)
            self._rollout.tick()


def streams(body: bytes) -> bool:
    """Whether a question asks for server-sent events, as OpenAI's API has it."""
    if b'"stream"' not in body:
        return False
    try:
        content = json.loads(body)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("stream") is True


def _marked(send: Any, side: str) -> Any:
    """`send` with the side in the headers."""

    async def send_marked(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (SIDE, side.encode())]}
        await send(message)

    return send_marked


def _replay(messages: list[dict[str, Any]], receive: Any) -> Any:
    """`receive` from the start of the body on."""
    rest = iter(messages)

    async def receive_again() -> Any:
        return next(rest, None) or await receive()

    return receive_again


def _refusal() -> Reply:
    body = json.dumps({"error": _NOBODY}).encode()
    return Reply(503, [(b"content-type", b"application/json"), (b"retry-after", b"1")], body)
