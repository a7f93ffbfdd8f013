"""Asks a side with a timeout and a breaker, and counts how it went."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from mangakd.runtime import metrics
from mangakd.runtime.question import Refused
from mangakd.runtime.rollout.breaker import Breaker
from mangakd.runtime.rollout.rollout import SIDES
from mangakd.runtime.rollout.settings import Settings
from mangakd.runtime.rollout.sides import FAILED, Question, Reply, Side

log = logging.getLogger("mangakd.rollout")
GONE = 499  # the status of an answer whose client has gone


class Streamed(NamedTuple):
    """begun: whether the answer has begun. failed: whether the side failed. seconds: until its beginning.

    gone: whether the client went before. That says nothing about the side: a model that hangs must not count as one that answers.
    """

    begun: bool
    failed: bool
    gone: bool
    seconds: float


class Asking:
    """sides: student and incumbent, by name."""

    def __init__(self, sides: Mapping[str, Side], settings: Settings):
        self._sides, self._timeout = sides, settings.timeout
        self.breakers = {name: Breaker(settings.breaker) for name in SIDES}
        self.outcomes = metrics.Counter(
            "mangakd_rollout_asked_total",
            "Questions that a side was asked, by outcome: ok, refused (4xx), error (5xx, none).",
            [{"side": side, "outcome": outcome} for side in SIDES for outcome in ("ok", "refused", "error")],
        )
        self.seconds = metrics.Histograms(
            "mangakd_rollout_seconds", "Time of a side to answer.", "side", metrics.SECONDS
        )

    def allows(self, side: str) -> bool:
        return self.breakers[side].allows()

    async def ask(self, side: str, question: Question) -> tuple[Reply | None, float]:
        """(None, seconds) of a side that fails or takes too long."""
        start, reply = time.perf_counter(), None
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._sides[side].ask(question)
        except Exception as error:  # a model, a network and a timeout fail in their own ways
            self._tell(side, question, error)
        seconds = time.perf_counter() - start
        failed = self._note(side, None if reply is None else reply.status, seconds)
        return (None if failed else reply), seconds

    async def stream(self, side: str, question: Question, receive: Any, send: Any) -> Streamed:
        """The timeout ends with the beginning of the answer."""
        start, status, seconds, begun = time.perf_counter(), None, 0.0, False

        async def begin(message: dict[str, Any]) -> None:
            nonlocal seconds, begun
            if message["type"] == "http.response.start":
                seconds, begun = time.perf_counter() - start, message["status"] != GONE
                limit.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(self._timeout) as limit:
                status = await self._sides[side].stream(question, receive, begin)
        except Refused:  # the client has gone
            status = GONE
        except Exception as error:
            self._tell(side, question, error)
        seconds = seconds or time.perf_counter() - start
        if status == GONE and not begun:
            self.outcomes.add(side=side, outcome="refused")
            return Streamed(False, False, True, seconds)
        return Streamed(begun, self._note(side, status, seconds), False, seconds)

    def _note(self, side: str, status: int | None, seconds: float) -> bool:
        """Count an answer, None for none. Whether the side failed."""
        failed = status is None or status >= FAILED
        self.breakers[side].note(failed)
        outcome = "error" if status is None or failed else "ok" if status < 400 else "refused"
        self.outcomes.add(side=side, outcome=outcome)
        if outcome == "ok":
            self.seconds.observe(side, seconds)
        return failed

    async def stop(self) -> None:
        for side in self._sides.values():
            await side.stop()

    def _tell(self, side: str, question: Question, error: Exception) -> None:
        """Without a traceback for a side that is away: it would be one for each question."""
        away = isinstance(error, OSError | TimeoutError) or type(error).__module__.startswith("httpx")
        fields = {"side": side, "request_id": question.request_id, "error": repr(error)[:200]}
        log.warning("a side failed", extra={"fields": fields}, exc_info=None if away else error)
