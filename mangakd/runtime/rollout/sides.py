"""The two that can answer a question: an ASGI app in this process, or a service behind a URL.

Both are asked alike, so the front does not know which side is which. A side fails with an exception or a status from 500 on.
`ask` collects the answer. `stream` sends it on piece by piece, as a language model writes it; an answer of a side that fails is
not begun, so that the other side can be asked.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from mangakd.core.errors import UserError
from mangakd.runtime.client_gone import unless_gone
from mangakd.runtime.watch import App

# Headers of one connection, and those that describe a body as it was sent: RFC 9110, sections 7.6.1 and 8.
_OWN = {
    b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authenticate",
    b"proxy-authorization", b"host", b"content-length", b"content-encoding", b"accept-encoding", b"x-request-id", b"date",
    b"server", b"expect",
}  # fmt: skip
FAILED = 500  # the first status that says so
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Question:
    """scope: of ASGI. body: whole."""

    scope: dict[str, Any]
    body: bytes
    request_id: str

    @property
    def path(self) -> str:
        return str(self.scope["path"])


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Headers
    body: bytes

    @property
    def failed(self) -> bool:
        return self.status >= FAILED


class Side(Protocol):
    async def ask(self, question: Question) -> Reply: ...

    async def stream(self, question: Question, receive: Any, send: Any) -> int: ...

    async def stop(self) -> None: ...


class AppSide:
    """An ASGI app of this process. An answer that streams is collected first."""

    def __init__(self, app: App):
        self._app = app

    async def ask(self, question: Question) -> Reply:
        body, unread = bytearray(), [question.body]
        status, headers = 0, Headers()

        async def receive() -> dict[str, Any]:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return (
                await asyncio.get_running_loop().create_future()
            )  # never: the client's connection is the front's matter

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", ()))
            else:
                body.extend(message.get("body", b""))

        await self._app(dict(question.scope), receive, send)
        return Reply(status, headers, bytes(body))

    async def stream(self, question: Question, receive: Any, send: Any) -> int:
        """The status."""
        unread, status = [question.body], 0

        async def receive_all() -> dict[str, Any]:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            message: dict[str, Any] = await receive()
            return message

        async def send_begun(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            if status < FAILED:
                await send(message)

        await self._app(dict(question.scope), receive_all, send_begun)
        return status

    async def stop(self) -> None:
        pass


class UrlSide:
    """A service that speaks the same API, such as another `mangakd serve`. Environment variables for proxies are not read."""

    def __init__(self, url: str, timeout: float):
        try:
            import httpx
        except ImportError as error:
            raise UserError(f"incumbent: {url} needs httpx ({error}). Install it with: pip install httpx") from error
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False)

    async def ask(self, question: Question) -> Reply:
        """Raises httpx.HTTPError."""
        answer = await self._client.post(question.path, content=question.body, headers=_headers(question))
        return Reply(answer.status_code, _kept(answer.headers.raw), answer.content)

    async def stream(self, question: Question, receive: Any, send: Any) -> int:
        """The status. Raises httpx.HTTPError, and Refused when the client goes."""
        status = 0

        async def pass_on() -> None:
            nonlocal status
            post = self._client.stream("POST", question.path, content=question.body, headers=_headers(question))
            async with post as answer:
                status = answer.status_code
                if status >= FAILED:
                    return
                await send({"type": "http.response.start", "status": status, "headers": _kept(answer.headers.raw)})
                async for chunk in answer.aiter_bytes():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await unless_gone(receive, pass_on())
        return status

    async def stop(self) -> None:
        await self._client.aclose()


def _headers(question: Question) -> Headers:
    return [*_kept(question.scope["headers"]), (b"x-request-id", question.request_id.encode())]


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return [(name.lower(), value) for name, value in headers if name.lower() not in _OWN]
