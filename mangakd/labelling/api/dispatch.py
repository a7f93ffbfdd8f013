"""Requests of a ledger to an API: many at a time, within its limits, with retries, until all are answered or a budget ends."""

import asyncio
import collections
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mangakd.core.errors import UserError
from mangakd.labelling.api.group_writer import GroupWriter
from mangakd.labelling.api.limits import Limits, backoff
from mangakd.labelling.api.prices import Price, counted, tokens_of
from mangakd.labelling.api.signals import Signals
from mangakd.labelling.api.wire import CallError, Reply, Wire
from mangakd.labelling.ledger import Ledger, Outcome
from mangakd.labelling.totals import Totals, totals

SAME = 20  # requests that fail for the same reason before any is answered, after which no more are asked
LIMITED = 100  # refusals for a limit in a row, after which a request fails
POLL = 0.5  # seconds between two looks at what other processes do
SHOW = 2.0  # seconds between two sums for the progress bar
Row = tuple[str, str, float | None]
Show = Callable[[Totals], object]


@dataclass(frozen=True)
class Budget:
    """concurrency: requests that travel at a time. attempts: of a request at most, refusals for a limit apart.

    max_cost: of all that the ledger holds. max_requests: of this command. timeout: seconds of an attempt.
    """

    concurrency: int = 32
    attempts: int = 6
    timeout: float = 600.0
    max_cost: float | None = None
    max_requests: int | None = None


class Dispatch:
    """most: tokens of an answer at most. show: called with the sums every two seconds."""

    def __init__(
        self, wire: Wire, ledger: Ledger, price: Price | None, budget: Budget, most: int, show: Show = lambda _: None
    ) -> None:
        self._wire, self._ledger, self._price, self._budget = wire, ledger, price, budget
        self._most, self._show = most, show
        self._chance = random.Random()
        self._buffer: collections.deque[Row] = collections.deque()
        self._taken = self._answers = 0
        self._errors: collections.deque[str] = collections.deque(maxlen=SAME)
        self._fatal: UserError | None = None
        self._refill: asyncio.Task[bool] | None = None
        self.reason = ""  # why the run ended before all was asked
        self.signal: int | None = None

    async def run(self) -> None:
        """Raises UserError where no request can succeed. What travels is awaited before, and whenever a budget ends."""
        self._writer, self._limits = GroupWriter(self._ledger), Limits()
        self._stop, self._turn = asyncio.Event(), asyncio.Lock()
        count, workers = self._budget.concurrency, list[asyncio.Task[None]]()
        self._gate = asyncio.Semaphore(count)
        helpers = [asyncio.create_task(self._renew()), asyncio.create_task(self._report())]
        with Signals(self._on_signal, lambda: [each.cancel() for each in workers]):
            try:
                workers += [asyncio.create_task(self._work()) for _ in range(count + ahead(count))]
                await asyncio.gather(*workers)
            except asyncio.CancelledError:
                if self.signal is None:
                    raise
            finally:
                rest = [*helpers, *workers, *([self._refill] if self._refill else [])]
                for each in rest:
                    each.cancel()
                await asyncio.gather(*rest, return_exceptions=True)
                await self._writer.call(self._ledger.leave)
                await self._writer.close()
                await self._wire.close()
        if self._fatal is not None:
            raise self._fatal

    def _on_signal(self, number: int) -> None:
        self.signal = number
        self._end("stopped")

    def _end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._stop.set()

    # Requests, one at a time:

    async def _work(self) -> None:
        while (row := await self._next()) is not None:
            await self._ask(*row)

    async def _next(self) -> Row | None:
        async with self._turn:
            while not self._buffer and not self._stop.is_set():
                if self._refill is not None and not self._refill.done():
                    await self._refill
                elif not await self._fill():
                    return None
            if self._stop.is_set():
                return None
            row = self._buffer.popleft()
            if len(self._buffer) < self._budget.concurrency and (self._refill is None or self._refill.done()):
                self._refill = asyncio.create_task(self._take())
            return row

    async def _take(self) -> bool:
        """Take more requests, also before they are needed, so that nobody waits for the disk. Whether there were any."""
        size, most = 2 * self._budget.concurrency, self._budget.max_requests
        count = size if most is None else min(size, most - self._taken)
        if count <= 0 or self.reason:
            return False
        rows = await self._writer.call(partial(self._ledger.take, count, self._budget.max_cost))
        self._taken += len(rows)
        self._buffer.extend(rows)
        return bool(rows)

    async def _fill(self) -> bool:
        """Take more requests; False where there are none, a budget allows none, and nobody asks any that may come back."""
        if self.reason:
            return False
        if await self._take():
            return True
        free, others, owned = await self._writer.call(self._open)
        if free and self._taken >= (self._budget.max_requests or float("inf")):
            self.reason = f"max_requests={self._budget.max_requests} is reached"
        elif free and not owned and self._budget.max_cost is not None:
            self.reason = f"max_cost={self._budget.max_cost} leaves no room for the next request"
        elif free or others:
            await self._wait(POLL)
            return True
        return False

    def _open(self) -> tuple[int, int, int]:
        """Requests of the job that nobody asks and that another owner asks, and those that anybody asks, of any job.

        What this owner asks never comes back, but it leaves room in max_cost when it ends. So do other jobs' requests.
        """
        rows = self._ledger.query(
            "SELECT total(owner IS NULL AND state = 'waiting' AND key IN (SELECT key FROM job)), "
            "total(owner != ? AND key IN (SELECT key FROM job)), total(owner IS NOT NULL) FROM requests WHERE batch IS NULL",
            (self._ledger.owner.name,),
        )
        free, others, owned = map(int, rows[0])
        return free, others, owned

    async def _ask(self, key: str, text: str, estimate: float | None) -> None:
        """All attempts of one request."""
        body, size = json.loads(text), tokens_of(text)
        attempts = limited = 0
        while not self._stop.is_set():
            await self._limits.enter(size, self._most)
            if self._stop.is_set():
                return
            await self._writer.write(partial(self._ledger.mark_asked, key=key))
            try:
                async with self._gate:
                    if self._stop.is_set():
                        await self._writer.write(partial(self._ledger.mark_unsent, key=key))
                        return
                    start = time.monotonic()
                    reply = await self._send(key, body)
                outcome = self._outcome(reply, size, time.monotonic() - start)
            except CallError as error:
                attempts, limited = attempts + (error.kind != "slower"), limited + (error.kind == "slower")
                if not await self._again(key, error, attempts, limited):
                    return
            else:
                self._answers += 1
                await self._writer.write(partial(self._ledger.record, key=key, outcome=outcome))
                return

    async def _send(self, key: str, body: Any) -> Reply:
        try:
            reply = await asyncio.wait_for(self._wire.send(key, body), self._budget.timeout)
        except TimeoutError as error:
            raise CallError("again", f"no answer within {self._budget.timeout:g} s", uncertain=True) from error
        except CallError as error:
            self._limits.learn(error.headers)
            raise
        self._limits.learn(reply.headers)
        return reply

    def _outcome(self, reply: Reply, size: int, latency: float) -> Outcome:
        return outcome_of(self._wire, self._price, self._most, reply.raw, size, latency)

    async def _again(self, key: str, error: CallError, attempts: int, limited: int) -> bool:
        """Record an attempt without an answer. True after the pause before the next one."""
        message = self._wire.clean(str(error))
        last = attempts >= self._budget.attempts or limited >= LIMITED
        if error.kind == "rejected" or (last and error.kind != "fatal"):
            final = error.kind == "rejected"
            await self._writer.write(
                partial(self._ledger.mark_failed, key=key, error=message, uncertain=error.uncertain, final=final)
            )
            self._note_failure(message)
            return False
        await self._writer.write(partial(self._ledger.mark_tried, key=key, error=message, uncertain=error.uncertain))
        if error.kind == "fatal":
            self._give_up(f"{self._wire.name} refuses the requests: {message}. {self._wire.cure}")
            return False
        wait = backoff(max(attempts, limited), self._chance)
        if error.kind == "slower":
            self._limits.pause(wait if error.wait is None else error.wait * self._chance.uniform(1, 1.05))
        else:
            await self._wait(wait if error.wait is None else max(error.wait, wait))
        return True

    def _note_failure(self, message: str) -> None:
        """End the run where none is answered, and one after another fails for the same reason."""
        if self._answers:
            return
        self._errors.append(re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "…", message)[:80])
        if len(self._errors) == SAME and len(set(self._errors)) == 1:
            self._give_up(f"{SAME} requests have failed for the same reason: {message}. {self._wire.cure}")

    def _give_up(self, message: str) -> None:
        self._fatal = self._fatal or UserError(message)
        self._end("failed")

    # Beside them:

    async def _wait(self, seconds: float) -> None:
        """Sleep, or until the run stops."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ledger.owner.lease / 4)
            await self._writer.write(self._ledger.owner.renew)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(SHOW)
            self._show(await self._writer.call(partial(totals, self._ledger)))


def ahead(concurrency: int) -> int:
    """Requests that are written down as asked while others travel, so that no place among those waits for the disk."""
    return concurrency // 2 + 1


def outcome_of(
    wire: Wire, price: Price | None, most: int, raw: str, size: int, latency: float, batch: bool = False
) -> Outcome:
    """What is recorded of a reply. size: tokens of the request by estimate. Raises CallError for a reply that is no answer."""
    raw = wire.clean(raw)
    try:
        reading = wire.read(json.loads(raw))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        short = raw if len(raw) < 200 else f"{raw[:200]}…"
        raise CallError(
            "again", f"a reply that is no answer ({type(error).__name__}): {short}", uncertain=True
        ) from error
    tokens_in, cached, tokens_out, estimated = counted(
        reading.usage, size, reading.answer.text + reading.answer.thought, most
    )
    cost = None if price is None else price.cost(tokens_in, tokens_out, cached, batch)
    refused = reading.answer.reason == "refused"
    return Outcome(raw, tokens_in, cached, tokens_out, estimated, cost, latency, reading.finish, refused)
