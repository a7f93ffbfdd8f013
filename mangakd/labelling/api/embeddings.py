"""Vectors of texts by OpenAI's endpoint for embeddings, or any server that speaks like it (vLLM, TEI, llama.cpp).

A request holds many texts, and goes through the ledger, the limits and the budget of all requests to an API: nothing is paid
twice.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mangakd.core.errors import UserError
from mangakd.labelling.api.client_errors import call_error
from mangakd.labelling.api.openai_wire import OpenAIWire
from mangakd.labelling.api.provider import Api, api_of
from mangakd.labelling.api.wire import Plain, Reading, Reply, Usage, whole
from mangakd.labelling.provider import Answer, Request
from mangakd.labelling.totals import manifest_entry
from mangakd.models.sampling import Sampling

NO_TEXT = Sampling(max_new_tokens=1)  # an answer has no tokens


@dataclass(kw_only=True)
class EmbeddingsWire(OpenAIWire):
    """dimensions: to which the provider cuts vectors, where its model can; None: as the model makes them."""

    dimensions: int | None = None

    def body(self, request: Request, sampling: Sampling) -> Plain:
        cut = {} if self.dimensions is None else {"dimensions": self.dimensions}
        texts = [text for _, text in request.prompt]
        return {"model": self.model, "input": texts, "encoding_format": "base64", **cut, **self.extra}

    async def send(self, key: str, body: Plain) -> Reply:
        rest = {name: value for name, value in body.items() if name not in ("model", "input")}
        try:
            reply = await self.client.embeddings.with_raw_response.create(
                model=body["model"], input=body["input"], extra_body=rest, extra_headers={"Idempotency-Key": key}
            )
        except Exception as error:
            raise call_error(error) from error
        return Reply(reply.http_response.text, reply.headers)

    def read(self, reply: Plain) -> Reading:
        """An answer without a text: `vectors` reads the numbers."""
        vectors(reply)
        usage = reply.get("usage") or {}
        return Reading(Answer("", "ended", 0), "stop", Usage(whole(usage.get("prompt_tokens")), 0))


def vectors(reply: Plain) -> np.ndarray:
    """(N, D) float32 of a reply, in the order of its texts. Raises KeyError, TypeError or ValueError for a reply without them."""
    rows = sorted(reply["data"], key=lambda row: row["index"])
    if not rows or [row["index"] for row in rows] != [*range(len(rows))]:
        raise ValueError("the vectors of a reply are not numbered 0, 1, 2, …")
    return np.stack([_vector(row["embedding"]) for row in rows])


def _vector(numbers: Any) -> np.ndarray:
    """Some servers answer with a list whatever they are asked for."""
    if isinstance(numbers, str):
        return np.frombuffer(base64.b64decode(numbers, validate=True), "<f4")
    return np.array(numbers, np.float32)


@dataclass(kw_only=True)
class ApiEncoder:
    """api: with an EmbeddingsWire. texts: of a request. ledger_entry: what the manifest says of the ledger.

    Raises UserError where a budget ends before all texts have vectors.
    """

    remembers: ClassVar[bool] = True
    api: Api
    texts: int = 64
    ledger_entry: Plain | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.texts, int) or self.texts < 1:
            raise UserError(f"provider.texts={self.texts} must be a whole number from 1 on.")

    @property
    def identity(self) -> Mapping[str, Any]:
        dimensions = getattr(self.api.wire, "dimensions", None)
        return {**self.api.identity, **({} if dimensions is None else {"dimensions": dimensions})}

    def within(self, ledger: Path, max_cost: float | None, max_requests: int | None) -> "ApiEncoder":
        """The same with a ledger and a budget."""
        return replace(self, api=replace(self.api, ledger=ledger, max_cost=max_cost, max_requests=max_requests))

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        with self.api.opened(self.requests(texts), NO_TEXT) as ledger:
            if (halt := self.api.ask(ledger, NO_TEXT)) is not None:
                raise UserError(
                    f"{halt.reason}. The same command goes on; vectors that are paid for are in {ledger.file}."
                )
            parts = [*self._parts(row for rows in ledger.replies() for row in rows)]
            self.ledger_entry = manifest_entry(ledger, ledger.file, ledger.file, self.api.currency)
        return np.concatenate(parts)

    def requests(self, texts: Sequence[str]) -> list[Request]:
        starts = range(0, len(texts), self.texts)
        return [Request(tuple(("user", text) for text in texts[i : i + self.texts]), 0) for i in starts]

    def _parts(self, rows: Iterator[tuple[str, str, str | None]]) -> Iterator[np.ndarray]:
        for number, (_, _, reply) in enumerate(rows):
            if reply is None:
                first = number * self.texts + 1
                raise UserError(
                    f"texts {first} to {first + self.texts - 1} have no vectors: their request has failed. The same command asks "
                    "again; a smaller provider.texts makes smaller requests."
                )
            yield vectors(json.loads(reply))


def openai_embeddings(texts: int = 64, price: Mapping[str, Any] | None = None, **options: Any) -> ApiEncoder:
    """OpenAI's endpoint for embeddings. price: of a million tokens of texts. options: of EmbeddingsWire and Api."""
    own = {name: value for name, value in (price or {}).items() if value is not None}
    whole_price = {"output": 0.0, **own} if own else {}
    return ApiEncoder(api=api_of(EmbeddingsWire, {**options, "price": whole_price}), texts=texts)
