"""OpenAI's chat completions, through the official client: OpenAI itself, vLLM, llama.cpp, TGI and whatever speaks like them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError
from mangakd.labelling.api.client_errors import call_error
from mangakd.labelling.api.client_wire import ClientWire
from mangakd.labelling.api.wire import Plain, Reading, Reply, Usage, whole
from mangakd.labelling.provider import Answer, Reason, Request
from mangakd.models.sampling import Sampling

ENDED = ("stop", "eos_token", "stop_sequence", "tool_calls", "function_call")  # TGI has words of its own
REFUSED = ("content_filter",)
TOKENS_KEYS = ("max_tokens", "max_completion_tokens")


@dataclass(kw_only=True)
class OpenAIWire(ClientWire):
    """tokens_key: the parameter that limits an answer; None for OpenAI's new name at OpenAI, and the old one elsewhere.

    top_logprobs: of requests with choices. send_seed: where texts are drawn. Raises UserError for what is no option.
    """

    name, client_class = "openai", "AsyncOpenAI"
    official, address_variable = "https://api.openai.com/v1", "OPENAI_BASE_URL"
    key_variable: str = "OPENAI_API_KEY"
    tokens_key: str | None = None
    top_logprobs: int = 20
    send_seed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tokens_key = self.tokens_key or TOKENS_KEYS[self.address == self.official]
        if self._tokens_key not in TOKENS_KEYS:
            raise UserError(f"provider.tokens_key={self.tokens_key} must be {' or '.join(TOKENS_KEYS)}.")
        if self.extra.get("stream") or self.extra.get("n", 1) != 1:
            raise UserError(
                "provider.extra can set neither stream nor n: answers come whole, and samples=… draws more."
            )

    def body(self, request: Request, sampling: Sampling) -> Plain:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": content} for role, content in request.prompt],
            self._tokens_key: sampling.max_new_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.draws and self.send_seed:
            body["seed"] = request.seed & 0x7FFFFFFF  # of 31 bits, which all servers take
        if self.stop:
            body["stop"] = [*self.stop]
        if request.choices and self.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if request.schema is not None:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {name: value for name, value in {**body, **self.extra}.items() if name not in self.omit}

    async def send(self, key: str, body: Plain) -> Reply:
        try:  # the body goes as extra_body: the client would walk through its messages once more, a seventh of its time
            reply = await self.client.chat.completions.with_raw_response.create(
                model=self.model, messages=[], extra_body=body, extra_headers={"Idempotency-Key": key}
            )
        except Exception as error:
            raise call_error(error) from error
        return Reply(reply.http_response.text, reply.headers)

    def read(self, reply: Plain) -> Reading:
        choice = reply["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason"))
        text = message.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is no text")
        usage = _usage(reply.get("usage"))
        refusal = message.get("refusal") or ""
        reason: Reason = "ended" if finish in ENDED else "cut"
        if refusal or finish in REFUSED:
            reason = "refused"
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        answer = Answer(
            text, reason, usage.answer or 0, thought=str(thought), logprobs=_logprobs(choice.get("logprobs"))
        )
        return Reading(answer, finish, usage)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, Mapping):
        return Usage(None, None)
    details = usage.get("prompt_tokens_details")
    cached = whole(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    return Usage(whole(usage.get("prompt_tokens")), whole(usage.get("completion_tokens")), cached or 0)


def _logprobs(content: Any) -> tuple[Mapping[str, float], ...]:
    """For each token its alternatives with itself. Servers may list a text twice, as other bytes: the likelier one stays."""
    tokens = (content or {}).get("content") or []
    rows = []
    for token in tokens:
        row: dict[str, float] = {}
        for each in (token, *(token.get("top_logprobs") or ())):
            row[each["token"]] = max(float(each["logprob"]), row.get(each["token"], float("-inf")))
        rows.append(row)
    return tuple(rows)
