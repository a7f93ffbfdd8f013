"""`Api`: a teacher behind an API. Its ledger holds every reply, so that asking again costs nothing."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from mangakd.core.errors import UserError
from mangakd.labelling.api.batch_dispatch import BatchDispatch, Say
from mangakd.labelling.api.batch_wire import AnthropicBatches, BatchWire, OpenAIBatches
from mangakd.labelling.api.client_wire import ClientWire
from mangakd.labelling.api.dispatch import Budget, Dispatch, Show
from mangakd.labelling.api.prices import Price, tokens_of
from mangakd.labelling.api.wire import Plain, Wire
from mangakd.labelling.ledger import Asking, Ledger
from mangakd.labelling.owners import LEASE, Owner
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.labelling.totals import totals
from mangakd.models.sampling import Sampling


@dataclass(frozen=True)
class Halt:
    """Why a run ended before all was asked: a budget, or a signal."""

    reason: str
    signal: int | None = None


@dataclass(kw_only=True)
class Api(Provider):
    """wire: the API. ledger: its file; max_cost counts all that it holds. price: of a million tokens, before `prices`.

    ask_rejected: ask again what the provider has rejected. lease: seconds after which another process asks what this one had
    taken, unless it is renewed. batch: through the batch API, with batch_poll seconds between two looks, and batch_rows
    requests in each at most. Raises UserError for an option outside its range, and for max_cost without a price.
    """

    remembers: ClassVar[bool] = True
    wire: Wire
    ledger: Path | None = None
    max_cost: float | None = None
    max_requests: int | None = None
    concurrency: int = 32
    attempts: int = 6
    ask_rejected: bool = False
    batch: bool = False
    batch_poll: float = 30.0
    batch_rows: int | None = None
    lease: float = LEASE
    price: Mapping[str, Any] = field(default_factory=dict)
    prices: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        for name in ("concurrency", "attempts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"provider.{name}={value} must be a whole number from 1 on.")
        for name in ("max_cost", "max_requests"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
                raise UserError(f"{name}={value} must be a number from 0 on, or null.")
        self.cost = Price.of(self.wire.model, self.prices, self.price)
        if self.cost is None and self.max_cost is not None:
            raise UserError(
                f"max_cost={self.max_cost} needs a price, and the one of provider.model={self.wire.model} is unknown. Set "
                "provider.price.input and provider.price.output, per million tokens."
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        names = ("stop", "omit", "extra")
        own = {name: value for name in names if (value := getattr(self.wire, name, None))}
        return {
            "provider": self.wire.name, "model": self.wire.model, "base_url": self.wire.address,
            **json.loads(json.dumps(own)),
        }  # fmt: skip

    @property
    def currency(self) -> str:
        return self.cost.currency if self.cost else "USD"

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        """Asks what the ledger lacks, then yields all. Raises UserError where a budget ends before."""
        with self.opened(requests, sampling) as ledger:
            halt = self.ask(ledger, sampling)
            if halt is not None:
                raise UserError(
                    f"{halt.reason}. The same command goes on; answers that are paid for are in {ledger.file}."
                )
            for chunk in self.recorded(ledger):
                answers = [each or Answer("", "failed", 0) for each in chunk]
                skip = min(done, len(answers))
                done -= skip
                advance(len(answers) - skip)
                yield answers[skip:]

    @contextmanager
    def opened(self, requests: Sequence[Request], sampling: Sampling, path: Path | None = None) -> Iterator[Ledger]:
        """The ledger with a row for each request."""
        file = path or self.ledger
        if file is None:
            raise UserError("ledger is not set: give the file that keeps the answers: ledger=answers.ledger.sqlite.")
        ledger = Ledger(file, Owner(self.lease))
        try:
            ledger.plan(self.plan(requests, sampling), self.wire.name, self.wire.model, self.ask_rejected)
            yield ledger
        finally:
            ledger.close()

    def plan(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Asking]:
        for request in requests:
            body = _text(self.wire.body(request, sampling))
            seed = request.seed if sampling.draws else None
            words = _text([self.wire.name, self.wire.address, self.wire.model, body, seed])
            most = (
                None
                if self.cost is None
                else self.cost.cost(tokens_of(body), sampling.max_new_tokens, batch=self.batch)
            )
            yield Asking(hashlib.sha256(words.encode()).hexdigest(), body, most)

    def ask(
        self, ledger: Ledger, sampling: Sampling, show: Show = lambda _: None, say: Say = lambda _: None
    ) -> Halt | None:
        """Ask what the ledger lacks of its job. None when all is asked. Raises UserError where no request can succeed."""
        if not totals(ledger).open:
            return None
        self.wire.prepare()
        budget, most = self._budget, sampling.max_new_tokens
        dispatch: Dispatch | BatchDispatch
        if self.batch:
            dispatch = BatchDispatch(
                self.wire,
                batches_of(self.wire),
                ledger,
                self.cost,
                budget,
                most,
                self.batch_poll,
                self.batch_rows,
                show,
                say,
            )
        else:
            dispatch = Dispatch(self.wire, ledger, self.cost, budget, most, show)
        _run(dispatch.run())
        show(totals(ledger))
        return Halt(dispatch.reason, dispatch.signal) if dispatch.reason else None

    @property
    def _budget(self) -> Budget:
        return Budget(self.concurrency, self.attempts, self.wire.timeout, self.max_cost, self.max_requests)

    def recorded(self, ledger: Ledger) -> Iterator[list[Answer | None]]:
        """The answers to the job's requests in its order, `failed` for those that have failed, None for those not asked."""
        for rows in ledger.replies():
            yield [self._answer(state, reply) for _, state, reply in rows]

    def _answer(self, state: str, reply: str | None) -> Answer | None:
        if reply is not None:
            return self.wire.read(json.loads(reply)).answer
        return Answer("", "failed", 0) if state == "failed" else None


def batches_of(wire: Wire) -> BatchWire:
    """Raises UserError for a provider without a batch API."""
    kinds: dict[str, type[BatchWire]] = {"openai": OpenAIBatches, "anthropic": AnthropicBatches}
    if not isinstance(wire, ClientWire):
        raise UserError(f"provider={wire.name} has no batches here: leave batch=true out, or use {' or '.join(kinds)}.")
    return kinds[wire.name](wire)


def _text(value: Plain | list[Any]) -> str:
    """Equal values have equal texts."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def api_of(wire: type[Wire], options: Mapping[str, Any]) -> Api:
    own = {each.name for each in fields(Api)}
    shared = {name: value for name, value in options.items() if name in own}
    rest = {name: value for name, value in options.items() if name not in own}
    if wire.name == "bedrock":
        rest["threads"] = options.get("concurrency", 32)
    return Api(wire=wire(**rest), **shared)


def openai(**options: Any) -> Api:
    """OpenAI's chat completions and whatever speaks like them. options: of OpenAIWire and Api."""
    from mangakd.labelling.api.openai_wire import OpenAIWire

    return api_of(OpenAIWire, options)


def anthropic(**options: Any) -> Api:
    """Anthropic's messages. options: of AnthropicWire and Api."""
    from mangakd.labelling.api.anthropic_wire import AnthropicWire

    return api_of(AnthropicWire, options)


def bedrock(**options: Any) -> Api:
    """Amazon Bedrock's Converse. options: of BedrockWire and Api."""
    from mangakd.labelling.api.bedrock_wire import BedrockWire

    return api_of(BedrockWire, options)
