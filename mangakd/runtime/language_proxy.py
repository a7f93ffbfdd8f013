"""Passes a question on to the engine and its answer back, whole or as server-sent events.

A request to the engine ends with its client: httpx closes the connection when the task is cancelled, and llama.cpp then frees the
slot. Nothing of an answer is collected but the event that is being read, and of an answer without events the answer itself, which
max_tokens bounds. Events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from mangakd.runtime.language_metrics import Record
from mangakd.runtime.language_questions import EngineRequest
from mangakd.runtime.question import Refused

Send = Callable[[dict[str, Any]], Awaitable[None]]
SEND_SECONDS = 30.0  # a client that takes nothing for so long is cut off: it holds a place of the engine
TIMEOUT = httpx.Timeout(600, connect=5, pool=None)  # seconds without a byte of the engine
GONE = "the engine ended before it had answered; try again."
_EVENT_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


def client() -> httpx.AsyncClient:
    """trust_env: a proxy of the environment must not see questions to this machine. No kept connections: the engine may close one
    at the moment that it is used.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log each request a second time
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False)


async def forward(http: httpx.AsyncClient, address: str, request: EngineRequest, send: Send, record: Record) -> None:
    """Answer a request. Raises Refused if the engine refuses it or ends, unless the answer has begun."""
    headers = {"content-type": "application/json"}
    begun = False
    try:
        async with http.stream("POST", address + request.path, content=request.body, headers=headers) as answer:
            if answer.status_code != 200:
                raise _refusal(answer.status_code, await answer.aread())
            if not request.stream:
                await _send_whole(await answer.aread(), send, record)
                return
            begun = True
            await _send(send, {"type": "http.response.start", "status": 200, "headers": [*_EVENT_HEADERS]})
            async for event in _events(answer.aiter_raw()):
                if _passes(event, request, record):
                    await _send(send, {"type": "http.response.body", "body": event, "more_body": True})
    except httpx.HTTPError as error:
        if not begun:
            status = 504 if isinstance(error, httpx.TimeoutException) else 503
            raise Refused(status, GONE) from error
        failure = json.dumps({"error": {"message": GONE, "type": "server_error", "param": None, "code": None}}).encode()
        await _send(
            send,
            {"type": "http.response.body", "body": b"data: %b\n\n" % failure, "more_body": True},
        )
    await _send(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _send_whole(body: bytes, send: Send, record: Record) -> None:
    record.usage(json.loads(body).get("usage"))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await _send(send, {"type": "http.response.start", "status": 200, "headers": headers})
    await _send(send, {"type": "http.response.body", "body": body})


async def _send(send: Send, message: dict[str, Any]) -> None:
    """Raises TimeoutError for a client that does not read."""
    async with asyncio.timeout(SEND_SECONDS):
        await send(message)


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole events, each with its blank line."""
    rest = b""
    async for chunk in chunks:
        *events, rest = (rest + chunk).split(b"\n\n")
        for event in events:
            yield event + b"\n\n"


def _passes(event: bytes, request: EngineRequest, record: Record) -> bool:
    """Whether the client gets an event: the event of the usage is for those who asked for it. Counts what it says."""
    if b'"content":"' in event or b'"text":"' in event:
        record.first_token()
    if b'"usage"' not in event or not event.startswith(b"data: {"):
        return True
    content = json.loads(event[len(b"data: ") :])
    record.usage(content.get("usage"))
    return request.usage or bool(content.get("choices"))


def _refusal(status: int, body: bytes) -> Refused:
    """The engine's own sentence for a wrong question, such as a prompt of more tokens than the context holds."""
    try:
        message = " ".join(str(json.loads(body)["error"]["message"]).split())[:500]
    except (ValueError, KeyError, TypeError):
        message = "the engine refused the question."
    return Refused(422, message) if 400 <= status < 500 else Refused(503, f"the engine failed: {message}")
