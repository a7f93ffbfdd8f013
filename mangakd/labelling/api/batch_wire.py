"""The batch APIs of OpenAI and Anthropic: half the price, within a day."""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mangakd.labelling.api.client_errors import call_error
from mangakd.labelling.api.client_wire import ClientWire
from mangakd.labelling.api.wire import Plain

KEY = "mangakd_batch"  # of the metadata of OpenAI's batches
WINDOW = 3600.0  # seconds: clocks of provider and this machine differ by less
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class State:
    """note: for progress. error: of the batch as a whole. full: it was refused because others are still queued."""

    ended: bool
    note: str
    error: str = ""
    full: bool = False


@dataclass(frozen=True)
class Result:
    """raw: the JSON text of the reply, or None with an error. final: the request itself was rejected."""

    key: str
    raw: str | None
    error: str = ""
    final: bool = False


class Waiting(Exception):
    """Whether a batch exists is not known yet: one that may be it is still in progress."""


class BatchWire(ABC):
    """rows, bytes: of a batch at most. wire: makes its client."""

    rows: int
    bytes: int

    def __init__(self, wire: ClientWire) -> None:
        self._client = wire.client

    @abstractmethod
    async def create(self, name: str, requests: Sequence[tuple[str, Plain]]) -> str:
        """The id of a new batch. Raises CallError."""

    @abstractmethod
    async def find(self, name: str, keys: Collection[str], created: float, known: Collection[str]) -> str | None:
        """The id of a batch that was perhaps created. known: ids of others. Raises CallError, and Waiting."""

    @abstractmethod
    async def state(self, identity: str) -> State:
        """Raises CallError."""

    @abstractmethod
    def results(self, identity: str) -> AsyncIterator[Result]:
        """Of a batch that has ended. Raises CallError."""


class OpenAIBatches(BatchWire):
    """A file of requests, and a batch that names it. Our name is in the batch's metadata."""

    rows, bytes = 50_000, 200_000_000

    async def create(self, name: str, requests: Sequence[tuple[str, Plain]]) -> str:
        lines = (
            {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body} for key, body in requests
        )
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        try:
            file = await self._client.files.create(file=(f"{name}.jsonl", io.BytesIO(content)), purpose="batch")
            batch = await self._client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={KEY: name},
                extra_headers={"Idempotency-Key": name},
            )  # fmt: skip
        except Exception as error:
            raise call_error(error) from error
        return str(batch.id)

    async def find(self, name: str, keys: Collection[str], created: float, known: Collection[str]) -> str | None:
        try:
            async for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(KEY) == name:
                    return str(batch.id)
                if batch.created_at < created - WINDOW:
                    return None
        except Exception as error:
            raise call_error(error) from error
        return None

    async def state(self, identity: str) -> State:
        try:
            batch = await self._client.batches.retrieve(identity)
        except Exception as error:
            raise call_error(error) from error
        counts, errors = batch.request_counts, (batch.errors and batch.errors.data) or []
        note = f"{counts.completed} of {counts.total}" if counts else batch.status
        words = "; ".join(f"{each.code}: {each.message}" for each in errors[:3]) if batch.status == "failed" else ""
        return State(batch.status in ENDED, note, words, any(each.code == "token_limit_exceeded" for each in errors))

    async def results(self, identity: str) -> AsyncIterator[Result]:
        try:
            batch = await self._client.batches.retrieve(identity)
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                async with self._client.files.with_streaming_response.content(file) as reply:
                    async for line in reply.iter_lines():
                        if line.strip():
                            yield _openai_result(json.loads(line))
        except Exception as error:
            raise call_error(error) from error


def _openai_result(line: Any) -> Result:
    response, error = line.get("response") or {}, line.get("error")
    status = response.get("status_code")
    if status == 200 and not error:
        return Result(line["custom_id"], json.dumps(response["body"], ensure_ascii=False))
    final = status is not None and 400 <= status < 500 and status not in (408, 409, 429)
    return Result(line["custom_id"], None, f"{status or ''} {json.dumps(error or response.get('body'))}"[:500], final)


class AnthropicBatches(BatchWire):
    """Anthropic's batches carry no name: one that may have been created is known by the requests in its results."""

    rows, bytes = 100_000, 256_000_000

    async def create(self, name: str, requests: Sequence[tuple[str, Plain]]) -> str:
        content = [{"custom_id": key, "params": body} for key, body in requests]
        try:
            batch = await self._client.messages.batches.create(
                requests=[], extra_body={"requests": content}, extra_headers={"Idempotency-Key": name}
            )
        except Exception as error:
            raise call_error(error) from error
        return str(batch.id)

    async def find(self, name: str, keys: Collection[str], created: float, known: Collection[str]) -> str | None:
        try:
            async for batch in self._client.messages.batches.list(limit=100):
                if batch.created_at < datetime.fromtimestamp(created - WINDOW, UTC):
                    return None
                counts = batch.request_counts
                count = sum((counts.processing, counts.succeeded, counts.errored, counts.canceled, counts.expired))
                if batch.id in known or count != len(keys):
                    continue
                if batch.processing_status != "ended":
                    raise Waiting
                async for result in self.results(batch.id):
                    if result.key in keys:
                        return str(batch.id)
                    break
        except Waiting:
            raise
        except Exception as error:
            raise call_error(error) from error
        return None

    async def state(self, identity: str) -> State:
        try:
            batch = await self._client.messages.batches.retrieve(identity)
        except Exception as error:
            raise call_error(error) from error
        counts = batch.request_counts
        ready = counts.succeeded + counts.errored + counts.canceled + counts.expired
        return State(batch.processing_status == "ended", f"{ready} of {ready + counts.processing}")

    async def results(self, identity: str) -> AsyncIterator[Result]:
        try:
            async with self._client.messages.batches.with_streaming_response.results(identity) as reply:
                async for line in reply.iter_lines():
                    if line.strip():
                        yield _anthropic_result(json.loads(line))
        except Exception as error:
            raise call_error(error) from error


def _anthropic_result(line: Any) -> Result:
    result = line["result"]
    if result["type"] == "succeeded":
        return Result(line["custom_id"], json.dumps(result["message"], ensure_ascii=False))
    error = (result.get("error") or {}).get("error") or result.get("error") or {}
    final = error.get("type") in ("invalid_request_error", "request_too_large")
    return Result(line["custom_id"], None, f"{result['type']} {json.dumps(error)}"[:500], final)
