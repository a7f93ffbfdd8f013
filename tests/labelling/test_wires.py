"""What is sent and what is read, by hand from the providers' documentation; limits, waits and prices."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from mangakd.core.errors import UserError
from mangakd.labelling.api.anthropic_wire import AnthropicWire
from mangakd.labelling.api.bedrock_wire import BedrockWire
from mangakd.labelling.api.limits import Bucket, backoff, retry_after
from mangakd.labelling.api.openai_wire import OpenAIWire
from mangakd.labelling.api.prices import Price, counted, tokens_of
from mangakd.labelling.api.wire import Usage, status_error
from mangakd.labelling.provider import Answer, Request
from mangakd.models.sampling import Sampling

TALK = (("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "bye"))
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
ASKED = Request(TALK, 2**40 + 5, SCHEMA, ("yes", "no"))
SAMPLING = Sampling(0.7, 0.9, 64)
LOCAL = "http://localhost:8000/v1/"


def openai(**options: Any) -> OpenAIWire:
    return OpenAIWire(model="m", **{"base_url": LOCAL, **options})


def test_what_openai_is_sent() -> None:
    assert openai(stop=["\n"], extra={"reasoning_effort": "low"}).body(ASKED, SAMPLING) == {
        "model": "m", "max_tokens": 64, "temperature": 0.7, "top_p": 0.9, "seed": 5, "stop": ["\n"],
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"},
                     {"role": "assistant", "content": "hello"}, {"role": "user", "content": "bye"}],
        "logprobs": True, "top_logprobs": 20, "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
    }  # fmt: skip
    plain = openai(base_url=None, omit=["temperature"]).body(Request((("user", "hi"),), 1), Sampling())
    assert plain == {"model": "m", "max_completion_tokens": 256, "messages": [{"role": "user", "content": "hi"}]}


def test_what_anthropic_and_bedrock_are_sent() -> None:
    turns = [("user", "hi"), ("assistant", "hello"), ("user", "bye")]
    assert AnthropicWire(model="m", stop=["\n"]).body(ASKED, SAMPLING) == {
        "model": "m", "max_tokens": 64, "temperature": 0.7, "top_p": 0.9, "system": "be kind", "stop_sequences": ["\n"],
        "messages": [{"role": role, "content": content} for role, content in turns],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }  # fmt: skip
    with pytest.raises(UserError, match=r"temperature=1.5: Anthropic's models take 0 to 1"):
        AnthropicWire(model="m").body(ASKED, Sampling(1.5))
    wire = BedrockWire(model="m", region="us-east-1")
    assert wire.address == "https://bedrock-runtime.us-east-1.amazonaws.com"
    assert wire.body(Request(TALK, 0), SAMPLING) == {
        "modelId": "m", "system": [{"text": "be kind"}],
        "messages": [{"role": role, "content": [{"text": content}]} for role, content in turns],
        "inferenceConfig": {"maxTokens": 64, "temperature": 0.7, "topP": 0.9},
    }  # fmt: skip
    with pytest.raises(UserError, match="cannot hold an answer to a JSON schema"):
        wire.body(ASKED, SAMPLING)


def chat(finish: str = "stop", **message: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
    return {"choices": [{"finish_reason": finish, "message": {"content": "yes", **message}}], "usage": usage}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (chat(), Answer("yes", "ended", 4)),
        (chat("eos_token"), Answer("yes", "ended", 4)),
        (chat("length"), Answer("yes", "cut", 4)),
        (chat("content_filter"), Answer("yes", "refused", 4)),
        (chat(content=None, refusal="I cannot"), Answer("", "refused", 4)),
        (chat(reasoning_content="so"), Answer("yes", "ended", 4, thought="so")),
        (chat(reasoning="so"), Answer("yes", "ended", 4, thought="so")),
    ],
)
def test_how_openai_is_read(reply: Any, answer: Answer) -> None:
    reading = openai().read(reply)
    assert reading.answer == answer and reading.usage == Usage(9, 4, 5)


def test_logprobs_hold_the_alternatives_of_each_token() -> None:
    reply = chat()
    token = {"token": "yes", "logprob": -0.1, "top_logprobs": [
        {"token": "yes", "logprob": -0.1}, {"token": "no", "logprob": -2.5}, {"token": "no", "logprob": -9.0}]}  # fmt: skip
    reply["choices"][0]["logprobs"] = {"content": [token]}
    assert openai().read(reply).answer.logprobs == ({"yes": -0.1, "no": -2.5},)


@pytest.mark.parametrize(
    ("stop", "reason"), [("end_turn", "ended"), ("max_tokens", "cut"), ("refusal", "refused"), ("pause_turn", "cut")]
)
def test_how_anthropic_is_read(stop: str, reason: Any) -> None:
    reply = {
        "content": [
            {"type": "thinking", "thinking": "so"},
            {"type": "text", "text": "y"},
            {"type": "text", "text": "es"},
        ],
        "stop_reason": stop,
        "usage": {
            "input_tokens": 3,
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 1,
            "output_tokens": 4,
        },
    }
    reading = AnthropicWire(model="m").read(reply)
    assert reading.answer == Answer("yes", reason, 4, thought="so") and reading.usage == Usage(9, 4, 5)


@pytest.mark.parametrize(
    ("stop", "reason"), [("end_turn", "ended"), ("max_tokens", "cut"), ("guardrail_intervened", "refused")]
)
def test_how_bedrock_is_read(stop: str, reason: Any) -> None:
    content = [{"reasoningContent": {"reasoningText": {"text": "so"}}}, {"text": "yes"}]
    usage = {"inputTokens": 9, "outputTokens": 4, "totalTokens": 13}
    reading = BedrockWire(model="m", region="r").read(
        {"output": {"message": {"content": content}}, "stopReason": stop, "usage": usage}
    )
    assert reading.answer == Answer("yes", reason, 4, thought="so") and reading.usage == Usage(9, 4, 0)


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"message": {"content": ["x"]}}]}, {"error": "x"}])
def test_replies_that_are_no_answers_are_not_read(reply: Any) -> None:
    with pytest.raises((KeyError, TypeError, IndexError, ValueError)):
        openai().read(reply)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 29 Nov 2026 12:00:07 GMT"}, 7.0),
        ({"retry-after": "Sun, 29 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, datetime(2026, 11, 29, 12, tzinfo=UTC)) == seconds


def test_backoff_doubles_within_its_jitter_and_ends_at_a_minute() -> None:
    chance = random.Random(0)
    for attempt, most in ((1, 0.5), (2, 1.0), (5, 8.0), (8, 60.0), (500, 60.0)):
        draws = [backoff(attempt, chance) for _ in range(200)]
        assert most / 2 <= min(draws) < 0.6 * most and 0.9 * most < max(draws) <= most


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (408, "", "again"), (409, "", "again"), (429, "", "slower"), (500, "", "again"), (503, "", "again"), (529, "", "again"),
        (400, "bad prompt", "rejected"), (413, "", "rejected"), (422, "", "rejected"), (401, "", "fatal"), (403, "", "fatal"),
        (404, "", "fatal"), (429, "code: insufficient_quota", "fatal"), (400, "Your credit balance is too low", "fatal"),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, message: str, kind: str) -> None:
    error = status_error(status, message, {}, None)
    assert error.kind == kind and not error.uncertain


def test_a_bucket_fills_at_its_limit_and_follows_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("mangakd.labelling.api.limits.time.monotonic", lambda: clock[0])
    bucket = Bucket()
    assert bucket.wait(1000) == 0.0
    bucket.learn(60, 2)
    assert bucket.wait(2) == 0.0
    bucket.pour(2)
    assert bucket.wait(3) == pytest.approx(3.0)
    clock[0] += 1.5
    assert bucket.wait(3) == pytest.approx(1.5)
    clock[0] += 600
    bucket.learn(60, 50)
    assert bucket.wait(60) == pytest.approx(10.0) and bucket.wait(900) == pytest.approx(10.0)


def test_prices() -> None:
    table = [{"model": "gpt-4.1", "input": 2.0, "output": 8.0, "cached": 0.5, "date": "d", "source": "s"}]
    price = Price.of("gpt-4.1-2025-04-14", table, {})
    assert price is not None and price == Price.of("gpt-4.1", table, {"input": None})
    assert price.cost(1_000_000, 500_000, 400_000) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 8)
    assert price.cost(1_000_000, 500_000, 400_000, batch=True) == pytest.approx((0.6 * 2 + 0.4 * 0.5 + 0.5 * 8) / 2)
    assert Price.of("gpt-4.1-mini", table, {}) is None and Price.of("gpt-4.1-5", table, {}) is None
    own = Price.of("gpt-4.1", table, {"input": 3.0})
    assert own is not None and (own.input, own.cached, own.output, own.source) == (
        3.0,
        3.0,
        8.0,
        "set by provider.price",
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(20, 5, 8), (20, 8, 5, False)),
        (Usage(None, None), (20, 0, 3, True)),
        (Usage(-5, 5), (20, 0, 5, True)),
        (Usage(20, 10**9), (20, 0, 3, True)),
        (Usage(20, 0), (20, 0, 3, True)),
        (Usage(10**7, 5), (20, 0, 5, True)),
        (Usage(20, 5, 30), (20, 0, 5, False)),
    ],
)
def test_impossible_counts_are_estimated(usage: Usage, expected: Any) -> None:
    assert counted(usage, 20, "twelve chars", 64) == expected


def test_tokens_without_a_tokenizer() -> None:
    assert (tokens_of(""), tokens_of("abcd"), tokens_of("abcde"), tokens_of("日本語ab")) == (0, 1, 2, 4)
