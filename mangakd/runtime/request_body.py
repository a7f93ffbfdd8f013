"""Reads the body of a request within the limits of bytes and seconds."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from mangakd.runtime.question import Limits, Refused, check_size


async def read_body(request: Request, limits: Limits, seconds: float) -> bytes:
    """Raises Refused: 408 after `seconds`, 413 over limits.body, 499 if the client disconnects."""
    length = request.headers.get("content-length", "")
    check_size(int(length) if length.isdecimal() and len(length) < 20 else 0, limits)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                check_size(len(body), limits)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive in {seconds:g} s.") from None
    except ClientDisconnect:
        raise Refused(499, "the client has gone.") from None
    return bytes(body)
