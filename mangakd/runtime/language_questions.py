"""Bodies of POST /v1/chat/completions and /v1/completions in OpenAI's shape: what is checked, and what the engine is asked.

The engine gets only keys of these models. A key that it would read and that is not here (n_predict, grammar, id_slot, …) could
pass the limit of tokens or reach other questions, so an unknown key is refused. Keys that change no answer (user, metadata,
store, service_tier) are accepted and not forwarded. Tools, images and JSON schemas are not served.
Source: https://platform.openai.com/docs/api-reference/chat/create, …/completions/create
"""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mangakd.core.errors import near
from mangakd.runtime.question import Limits, Refused, show

Stop = Annotated[str, Field(min_length=1, max_length=100)]
UNREAD = {"model", "user", "metadata", "store", "service_tier", "n", "max_completion_tokens"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Part(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    include_usage: bool = False


class ResponseFormat(_Strict):
    type: Literal["text", "json_object"]


class Sampling(_Strict):
    """What both routes share. top_k, min_p and repeat_penalty are llama.cpp's."""

    model: str = ""
    max_tokens: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repeat_penalty: float | None = Field(None, gt=0, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: Literal[1] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None


class Chat(Sampling):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None


class Completion(Sampling):
    prompt: str = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=5)


BODIES: dict[str, type[Chat] | type[Completion]] = {"/v1/chat/completions": Chat, "/v1/completions": Completion}


@dataclass(frozen=True)
class EngineRequest:
    """body: what the engine is sent. stream: whether the answer comes as events. usage: whether the client wants its event."""

    path: str
    body: bytes
    stream: bool
    usage: bool


def engine_request(path: str, body: bytes, limits: Limits, most: int, chat: bool) -> EngineRequest:
    """Parse and check a body. most: the cap of max_tokens, which is also the default. chat: whether the model has a template.

    Raises Refused: 422 for a wrong question, which is 400 in OpenAI's shape.
    """
    if path == "/v1/chat/completions" and not chat:
        raise Refused(424, "this student has no chat template; ask POST /v1/completions.")
    try:
        question = BODIES[path].model_validate_json(body)
    except ValidationError as error:
        raise Refused(422, _sentence(error, BODIES[path])) from None
    _check_texts(question, limits)
    if isinstance(question, Chat) and question.response_format and question.messages[-1].role == "assistant":
        raise Refused(422, "the answer continues the assistant's last message, so response_format cannot hold for it.")
    stream, usage = bool(question.stream), bool(question.stream_options and question.stream_options.include_usage)
    content = question.model_dump(exclude_none=True, exclude=UNREAD) | {"max_tokens": _tokens(question, most)}
    content["stream_options"] = {"include_usage": True}  # the metrics count tokens
    if question.seed is not None:
        content["seed"] = question.seed % 2**32  # llama.cpp has 32 bits
    for message in content.get("messages", ()):
        message.pop("name", None)
        message["role"] = {"developer": "system"}.get(message["role"], message["role"])  # templates know no developer
    return EngineRequest(path, json.dumps(content).encode(), stream, usage)


def _check_texts(question: Chat | Completion, limits: Limits) -> None:
    texts = [question.prompt] if isinstance(question, Completion) else [each.text for each in question.messages]
    name = "prompt" if isinstance(question, Completion) else "messages"
    if len(texts) > limits.texts:
        raise Refused(422, f"messages holds {len(texts):,} messages; at most {limits.texts:,} are read.")
    if (size := sum(map(len, texts))) > limits.characters:
        raise Refused(422, f"{name} has {size:,} characters; at most {limits.characters:,} are read.")


def _tokens(question: Chat | Completion, most: int) -> int:
    name = "max_tokens"
    tokens = question.max_tokens
    if isinstance(question, Chat) and question.max_completion_tokens is not None:
        name, tokens = "max_completion_tokens", question.max_completion_tokens
    if tokens is not None and tokens > most:
        raise Refused(422, f"{name} is {show(tokens)}; this service writes at most {most:,} tokens.")
    return most if tokens is None else tokens


def _sentence(error: ValidationError, body: type[BaseModel]) -> str:
    """The first mistake, with its place and without the value, which may be long or private."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:50] for part in first["loc"])
    if first["type"] == "json_invalid":
        return f"the body is no JSON: {first['msg'][:200]}."
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        names = body.model_fields if len(first["loc"]) == 1 else ()
        return f"unknown key {show(key)}{near(key[:20], names)}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{ascii(place)[1:-1] or 'the body'}: {message[:300]}."
