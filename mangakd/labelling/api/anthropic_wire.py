"""Anthropic's messages, through the official client."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mangakd.core.errors import UserError
from mangakd.labelling.api.client_errors import call_error, installed
from mangakd.labelling.api.openai_wire import whole
from mangakd.labelling.api.wire import Plain, Reading, Reply, Usage, Wire, key_from, plain_address
from mangakd.labelling.provider import Answer, Reason, Request
from mangakd.models.sampling import Sampling

OFFICIAL = "https://api.anthropic.com"
ENDED = ("end_turn", "stop_sequence", "tool_use")


@dataclass(kw_only=True)
class AnthropicWire(Wire):
    """stop: texts that end an answer. omit: parameters that the model refuses, such as temperature. extra: further parameters."""

    name = "anthropic"
    model: str
    base_url: str | None = None
    key_variable: str = "ANTHROPIC_API_KEY"
    timeout: float = 600.0
    stop: Sequence[str] = ()
    omit: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.extra.get("stream"):
            raise UserError("provider.extra cannot set stream: answers come whole.")
        self.address = plain_address(
            self.base_url or os.environ.get("ANTHROPIC_BASE_URL") or OFFICIAL, "provider.base_url"
        )

    def body(self, request: Request, sampling: Sampling) -> Plain:
        """System messages become the one system prompt, which is apart."""
        if sampling.temperature > 1:
            raise UserError(f"temperature={sampling.temperature}: Anthropic's models take 0 to 1. Set temperature=1.0.")
        system = "\n\n".join(content for role, content in request.prompt if role == "system")
        turns = [{"role": role, "content": content} for role, content in request.prompt if role != "system"]
        body: dict[str, Any] = {"model": self.model, "max_tokens": sampling.max_new_tokens, "messages": turns}
        if system:
            body["system"] = system
        body["temperature"] = sampling.temperature
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if self.stop:
            body["stop_sequences"] = [*self.stop]
        if request.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": request.schema}}
        return {name: value for name, value in {**body, **self.extra}.items() if name not in self.omit}

    async def send(self, key: str, body: Plain) -> Reply:
        try:  # the body goes as extra_body: the client has no argument for temperature any more
            reply = await self._client.messages.with_raw_response.create(
                model=self.model, max_tokens=1, messages=[], extra_body=body, extra_headers={"Idempotency-Key": key}
            )
        except Exception as error:
            raise call_error(error) from error
        return Reply(reply.http_response.text, reply.headers)

    def read(self, reply: Plain) -> Reading:
        blocks, finish = reply["content"], str(reply.get("stop_reason"))
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        thought = "".join(block.get("thinking") or "" for block in blocks if block["type"] == "thinking")
        reason: Reason = "refused" if finish == "refusal" else "ended" if finish in ENDED else "cut"
        usage = _usage(reply.get("usage"))
        return Reading(Answer(text, reason, usage.answer or 0, thought=thought), finish, usage)

    def prepare(self) -> None:
        _ = self._client

    async def close(self) -> None:
        if "_client" in vars(self):
            await self._client.close()
            del self._client

    @cached_property
    def _client(self) -> Any:
        return installed("anthropic").AsyncAnthropic(
            api_key=self._key or "none", base_url=self.address, max_retries=0, timeout=self.timeout
        )

    @property
    def _key(self) -> str:
        return key_from(self.key_variable, needed=self.address == OFFICIAL)

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, [self._key]))

    @property
    def cure(self) -> str:
        return (
            f"Check the key in the environment variable {self.key_variable}, provider.model={self.model} and "
            f"provider.base_url={self.address}."
        )


def _usage(usage: Any) -> Usage:
    """Anthropic counts what it reads from a cache, and writes to it, beside input_tokens."""
    if not isinstance(usage, Mapping):
        return Usage(None, None)
    prompt, read = whole(usage.get("input_tokens")), whole(usage.get("cache_read_input_tokens")) or 0
    made = whole(usage.get("cache_creation_input_tokens")) or 0
    return Usage(None if prompt is None else prompt + read + made, whole(usage.get("output_tokens")), read)
