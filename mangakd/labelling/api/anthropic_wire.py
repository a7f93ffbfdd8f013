"""Anthropic's messages, through the official client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError
from mangakd.labelling.api.client_errors import call_error
from mangakd.labelling.api.client_wire import ClientWire
from mangakd.labelling.api.wire import Plain, Reading, Reply, Usage, whole
from mangakd.labelling.provider import Answer, Reason, Request
from mangakd.models.sampling import Sampling

ENDED = ("end_turn", "stop_sequence", "tool_use")


@dataclass(kw_only=True)
class AnthropicWire(ClientWire):
    name, client_class = "anthropic", "AsyncAnthropic"
    official, address_variable = "https://api.anthropic.com", "ANTHROPIC_BASE_URL"
    key_variable: str = "ANTHROPIC_API_KEY"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extra.get("stream"):
            raise UserError("provider.extra cannot set stream: answers come whole.")

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
            reply = await self.client.messages.with_raw_response.create(
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


def _usage(usage: Any) -> Usage:
    """Anthropic counts what it reads from a cache, and writes to it, beside input_tokens."""
    if not isinstance(usage, Mapping):
        return Usage(None, None)
    prompt, cache_reads = whole(usage.get("input_tokens")), whole(usage.get("cache_read_input_tokens")) or 0
    cache_writes = whole(usage.get("cache_creation_input_tokens")) or 0
    return Usage(
        None if prompt is None else prompt + cache_reads + cache_writes, whole(usage.get("output_tokens")), cache_reads
    )
