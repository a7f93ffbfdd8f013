"""Requests of a ledger to a batch API: submit, poll, collect, submit again what has failed or expired, over days and kills."""

import asyncio
import json
import time
from collections.abc import Callable

from mangakd.core.errors import UserError
from mangakd.labelling.api.batch_wire import BatchWire, Result, State, Waiting
from mangakd.labelling.api.dispatch import Budget, Show, outcome_of
from mangakd.labelling.api.prices import Price, tokens_of
from mangakd.labelling.api.signals import Signals
from mangakd.labelling.api.wire import CallError, Wire
from mangakd.labelling.batch_rows import Batch, BatchRows
from mangakd.labelling.ledger import Ledger
from mangakd.labelling.totals import totals

STEP = 1000  # requests that are taken at a time
GROUP = 256  # results that are recorded together
EXTRA = 200  # bytes of a line beside key and body, at most
Say = Callable[[str], object]


class BatchDispatch:
    """poll: seconds between two looks. A batch that may have been created is looked for for two polls before it is made anew.

    rows: of a batch at most, below the provider's own limit.
    """

    def __init__(
        self, wire: Wire, batches: BatchWire, ledger: Ledger, price: Price | None, budget: Budget, most: int, poll: float,
        rows: int | None = None, show: Show = lambda _: None, say: Say = lambda _: None,
    ) -> None:  # fmt: skip
        self._wire, self._batches, self._ledger, self._price, self._budget = wire, batches, ledger, price, budget
        self._most, self._poll, self._show, self._say = most, poll, show, say
        self._size = min(rows or batches.rows, batches.rows)
        self._rows = BatchRows(ledger)
        self._taken, self._not_before, self._errors = 0, 0.0, 0
        self.reason = ""
        self.signal: int | None = None

    async def run(self) -> None:
        """Raises UserError where no request can succeed. Batches that are submitted go on at the provider."""
        self._stop = asyncio.Event()
        with Signals(self._on_signal, self._stop.set):
            try:
                while not self._stop.is_set() and await self._turn():
                    await self._wait()
            finally:
                self._ledger.leave()
                await self._wire.close()

    def _on_signal(self, number: int) -> None:
        self.signal, self.reason = number, "stopped"
        self._stop.set()

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), self._poll)
        except TimeoutError:
            return

    async def _turn(self) -> bool:
        """One look at everything; whether anything is left to wait for."""
        try:
            for batch in self._rows.unknown():
                await self._recover(batch)
            for batch in self._rows.open():
                await self._collect(batch)
            while not self.reason and time.monotonic() >= self._not_before and await self._submit():
                pass
            self._errors = 0
        except CallError as error:
            self._errors += 1
            message = self._wire.clean(str(error))
            if error.kind in ("fatal", "rejected") or self._errors >= 10 * self._budget.attempts:
                raise UserError(f"{self._wire.name}'s batches fail: {message}. {self._wire.cure}") from error
            self._say(message)
        each = totals(self._ledger)
        self._show(each)
        return bool(self._rows.open() or self._rows.unknown() or (each.open and not self.reason))

    async def _recover(self, batch: Batch) -> None:
        """A batch that was planned, of which no id is known: find it, or free its requests."""
        try:
            identity = await self._batches.find(batch.name, self._rows.keys(batch), batch.created, self._rows.known())
        except Waiting:
            return
        if identity is not None:
            self._rows.submitted(batch, identity)
        elif time.time() > batch.created + 2 * self._poll:
            self._rows.end(batch)

    async def _submit(self) -> bool:
        """One more batch; False where there are no requests for it."""
        rows = self._take()
        if not rows:
            free = self._ledger.query(
                "SELECT 1 FROM requests WHERE state = 'waiting' AND owner IS NULL AND key IN (SELECT key FROM job) LIMIT 1"
            )
            if free and not self._rows.open():
                limit = self._budget.max_requests is not None and self._taken >= self._budget.max_requests
                name = "max_requests" if limit else "max_cost"
                self.reason = f"{name}={getattr(self._budget, name)} leaves no room for the next request"
            return False
        batch = self._rows.plan([key for key, _ in rows])
        try:
            identity = await self._batches.create(batch.name, [(key, json.loads(body)) for key, body in rows])
        except CallError as error:
            if not error.uncertain:  # it was not created
                self._rows.end(batch)
            raise
        self._rows.submitted(batch, identity)
        self._say(f"batch {identity}: {len(rows)} requests")
        return True

    def _take(self) -> list[tuple[str, str]]:
        """Requests for one batch, within its limits and the budget."""
        rows: list[tuple[str, str]] = []
        size, left = 0, self._size
        if self._budget.max_requests is not None:
            left = min(left, self._budget.max_requests - self._taken)
        while left > 0:
            part = self._ledger.take(min(left, STEP), self._budget.max_cost)
            for place, (key, body, _) in enumerate(part):
                size += len(body.encode()) + EXTRA
                if size > self._batches.bytes and rows:
                    self._ledger.free([key for key, _, _ in part[place:]])
                    part, left = part[:place], 0
                    break
                rows.append((key, body))
            left -= len(part)
            if not part:
                break
        self._taken += len(rows)
        return rows

    async def _collect(self, batch: Batch) -> None:
        """The results of a batch, if it has ended."""
        assert batch.id is not None
        state: State = await self._batches.state(batch.id)
        self._say(f"batch {batch.id}: {state.note}")
        if not state.ended:
            return
        group: list[Result] = []
        if not state.error:
            async for result in self._batches.results(batch.id):
                group.append(result)
                if len(group) >= GROUP:
                    self._record(batch, group)
                    group = []
        self._record(batch, group, last=True)
        if state.full:
            self._not_before = time.monotonic() + 10 * self._poll
        elif state.error:
            message = self._wire.clean(state.error)
            raise UserError(f"{self._wire.name} has refused batch {batch.id}: {message}. {self._wire.cure}")

    def _record(self, batch: Batch, group: list[Result], last: bool = False) -> None:
        """last: the batch has no further results. A kill then leaves no batch that is not done and has all its answers."""
        keys = self._rows.keys(batch)
        with self._ledger.transaction() as connection:
            for result in group:
                if result.key not in keys:
                    continue
                try:
                    if result.raw is None:
                        raise CallError("rejected" if result.final else "again", result.error)
                    body = connection.execute("SELECT body FROM bodies WHERE key = ?", (result.key,)).fetchone()[0]
                    latency = time.time() - batch.created
                    outcome = outcome_of(
                        self._wire, self._price, self._most, result.raw, tokens_of(body), latency, batch=True
                    )
                except CallError as error:
                    ends = self._rows.attempts(result.key) >= self._budget.attempts
                    final, message = error.kind == "rejected", self._wire.clean(str(error))
                    self._rows.failed(connection, batch, result.key, message, ends, final)
                else:
                    self._rows.record(connection, batch, result.key, outcome)
            if last:
                self._rows.finish(connection, batch)
