"""Ends work for a client that has gone: a language model would write on for nobody, and hold a place."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from mangakd.runtime.question import Refused


async def unless_gone(receive: Any, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and cancel it when the client disconnects. Raises what `work` raises, or Refused.

    The body has been read, so that the next message can only be the disconnection.
    """
    computing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({computing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not computing.done():
            raise Refused(499, "the client has gone.")
        computing.result()
    finally:
        for task in (computing, leaving):
            task.cancel()
        await asyncio.gather(computing, leaving, return_exceptions=True)
