"""Requests and tokens per minute that a provider allows: learnt from the headers of its replies.

A limit of L per minute is a bucket of L that fills at L / 60 per second. After each reply the bucket holds no more than the
provider says remains. A provider without such headers is only limited by `concurrency` and by its own 429s.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

PREFIXES = {
    # OpenAI and servers that follow it; Anthropic
    "requests": (("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"),
                 ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining")),
    "tokens": (("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens"),
               ("anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining")),
    "input": (("anthropic-ratelimit-input-tokens-limit", "anthropic-ratelimit-input-tokens-remaining"),),
    "output": (("anthropic-ratelimit-output-tokens-limit", "anthropic-ratelimit-output-tokens-remaining"),),
}  # fmt: skip
LONGEST = 3600.0  # seconds: a provider that asks for a longer pause is asked again after it
FIRST, MOST = 0.5, 60.0  # seconds before the first further attempt, and at most


class Bucket:
    """One limit. None until a reply has named it."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.level = 0.0
        self._at = time.monotonic()

    def learn(self, limit: float, remaining: float | None) -> None:
        """From one reply."""
        self._fill()
        if limit <= 0:
            return
        if self.limit != limit:
            self.level = limit if self.limit is None else min(self.level, limit)
            self.limit = limit
        if remaining is not None:
            self.level = min(self.level, remaining)

    def wait(self, amount: float) -> float:
        """Seconds until `amount` fits; what is more than the whole bucket waits for a full one."""
        if self.limit is None:
            return 0.0
        self._fill()
        lacking = min(amount, self.limit) - self.level
        return max(lacking, 0.0) * 60 / self.limit

    def pour(self, amount: float) -> None:
        self.level -= amount

    def _fill(self) -> None:
        now = time.monotonic()
        if self.limit is not None:
            self.level = min(self.level + (now - self._at) * self.limit / 60, self.limit)
        self._at = now


class Limits:
    """All limits of one provider."""

    def __init__(self) -> None:
        self.buckets = {name: Bucket() for name in PREFIXES}
        self._free_at = 0.0
        self._turn = asyncio.Lock()

    async def enter(self, tokens_in: int, tokens_out: int) -> None:
        """Wait until the limits have room for a request of as many tokens. Who comes first goes first."""
        amounts = {"requests": 1, "tokens": tokens_in + tokens_out, "input": tokens_in, "output": tokens_out}
        async with self._turn:
            while (wait := self._wait(amounts)) > 0:
                await asyncio.sleep(wait)
            for name, amount in amounts.items():
                self.buckets[name].pour(amount)

    def _wait(self, amounts: Mapping[str, float]) -> float:
        pause = self._free_at - time.monotonic()
        return max(pause, *(self.buckets[name].wait(amount) for name, amount in amounts.items()))

    def learn(self, headers: Mapping[str, str]) -> None:
        for name, pairs in PREFIXES.items():
            for limit, remaining in pairs:
                if (value := _number(headers.get(limit))) is not None:
                    self.buckets[name].learn(value, _number(headers.get(remaining)))

    def pause(self, seconds: float) -> None:
        """Let nobody in for some seconds: the provider has said so, or refused for a limit that it does not name."""
        self._free_at = max(self._free_at, time.monotonic() + seconds)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` asks for: a number, or a date."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return min(milliseconds / 1000, LONGEST)
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None:
        return min(seconds, LONGEST)
    try:
        date = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return min(max((date - (now or datetime.now(UTC))).total_seconds(), 0.0), LONGEST)


def backoff(attempt: int, chance: random.Random) -> float:
    """Seconds before attempt number `attempt` + 1: drawn from [½, 1] · min(0.5 · 2^(attempt − 1), 60)."""
    return min(FIRST * 2.0 ** min(attempt - 1, 20), MOST) * chance.uniform(0.5, 1.0)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
