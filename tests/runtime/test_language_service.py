"""`mangakd serve` on a GGUF: answers, streams, limits and wrong questions, by real processes over HTTP."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

try:
    import fastapi  # noqa: F401
    import gguf  # noqa: F401
    import httpx
    import psutil
    import uvicorn  # noqa: F401
    import xllamacpp  # noqa: F401
except ImportError as missing:
    pytest.skip(f"a served GGUF: pip install 'mangakd[serve-gguf]' gguf psutil ({missing})", allow_module_level=True)

from language_client import CHAT, COMPLETE, FOREVER, Body, engine_of, events, forever, language, metric, until
from serving_client import Process, strange_bodies
from tiny_gguf import language_folder

Served = tuple[Process, httpx.Client]
HI: list[Body] = [{"role": "user", "content": "hi"}]
# By hand, a token a byte: <|im_start|> user\n hi <|im_end|> \n <|im_start|> assistant\n
PROMPT_TOKENS = 1 + 5 + 2 + 1 + 1 + 1 + 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_folder(tmp_path_factory.mktemp("gguf") / "best", context=65536)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Served]:
    words = ("--context", "2048", "--slots", "2", "--queue", "4", "--max-characters", "4000", "--max-tokens", "1500")
    with language(folder, folder.parent / "log", *words) as served:
        yield served


def test_a_stream_says_what_the_whole_answer_says(running: Served) -> None:
    _, client = running
    body = {"messages": HI, "max_tokens": 20, "temperature": 0}
    whole = client.post(CHAT, json=body).json()
    assert whole["usage"]["prompt_tokens"] == PROMPT_TOKENS and whole["usage"]["completion_tokens"] == 20
    assert whole["model"] == "gguf_f32" and whole["choices"][0]["finish_reason"] == "length"
    with client.stream("POST", CHAT, json={**body, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream") and answer.headers["x-request-id"]
        *chunks, last = events(answer)
    assert last == "[DONE]" and not any("usage" in chunk for chunk in chunks)
    assert (
        "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
        == whole["choices"][0]["message"]["content"]
    )
    with client.stream(
        "POST", CHAT, json={**body, "stream": True, "stream_options": {"include_usage": True}}
    ) as answer:
        *_, usage, _ = events(answer)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 20


def test_metrics_count_tokens(running: Served) -> None:
    _, client = running
    names = ("mangakd_prompt_tokens_total", "mangakd_generated_tokens_total", "mangakd_first_token_seconds_count")
    client.post(COMPLETE, json={"prompt": "x", "max_tokens": 1})
    before = [metric(client, name) if name in client.get("/metrics").text else 0 for name in names]
    client.post(CHAT, json={"messages": HI, "max_tokens": 7})
    client.post(COMPLETE, json={"prompt": "four", "max_tokens": 5, "stream": True})
    after = [metric(client, name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [PROMPT_TOKENS + 4, 7 + 5, 1]
    assert metric(client, "mangakd_queue_texts") == metric(client, "mangakd_computing_texts") == 0
    assert metric(client, "mangakd_ready") == 1 and metric(client, "mangakd_engine_restarts_total") == 0


def test_openais_client_works(running: Served) -> None:
    openai = pytest.importorskip("openai")
    process, _ = running
    client = openai.OpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["gguf_f32"]
    chunks = client.chat.completions.create(model="any", messages=HI, max_completion_tokens=6, seed=-3, stream=True)
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) >= 1
    with pytest.raises(openai.BadRequestError, match="writes at most 1,500 tokens"):
        client.chat.completions.create(model="any", messages=HI, max_tokens=1501)


WRONG: list[tuple[str, Body, str]] = [
    (CHAT, {}, "messages: field required"),
    (CHAT, {"messages": []}, "messages: list should have at least 1 item"),
    (CHAT, {"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: input should be 'system'"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    (CHAT, {"messages": HI * 65}, "messages holds 65 messages; at most 64"),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 4001}]}, "messages has 4,001 characters"),
    (CHAT, {"messages": HI, "temperature": "warm"}, "temperature: input should be a valid number"),
    (CHAT, {"messages": HI, "max_tokens": 0}, "max_tokens"),
    (CHAT, {"messages": HI, "max_tokens": 10**30}, "writes at most 1,500 tokens"),
    (CHAT, {"messages": HI, "n": 2}, "n: input should be 1"),
    (CHAT, {"messages": HI, "n_predict": -1}, "unknown key 'n_predict'"),
    (CHAT, {"messages": HI, "max_token": 3}, "did you mean max_tokens"),
    (CHAT, {"messages": HI, "tools": []}, "unknown key 'tools'"),
    (CHAT, {"messages": HI, "response_format": {"type": "json_schema"}}, "response_format.type"),
    (
        CHAT,
        {"messages": [{"role": "assistant", "content": "{"}], "response_format": {"type": "json_object"}},
        "continues",
    ),
    (COMPLETE, {"prompt": ["a"]}, "prompt: input should be a valid string"),
    (COMPLETE, {"prompt": ""}, "prompt: string should have at least 1 character"),
    (COMPLETE, {"prompt": "a" * 3000}, "exceeds the available context size (2048 tokens)"),
    (COMPLETE, {"prompt": "a", "stop": ["x"] * 5}, "stop"),
]


@pytest.mark.parametrize(("path", "body", "message"), WRONG)
def test_a_wrong_question_is_a_400_of_openais_shape(running: Served, path: str, body: Body, message: str) -> None:
    answer = running[1].post(path, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (
        message in error["message"] and error["type"] == "invalid_request_error" and error.keys() >= {"param", "code"}
    )


def test_strange_bodies_never_get_a_500(running: Served) -> None:
    _, client = running
    chance, asked = random.Random(1), 0
    for body in strange_bodies(150, seed=3):
        text = body.replace(b'"texts"', chance.choice((b'"messages"', b'"prompt"')))
        answer = client.post(chance.choice((CHAT, COMPLETE)), content=text)
        assert 400 <= answer.status_code < 500 and answer.json()["error"]["message"], (answer.status_code, body[:200])
        asked += 1
    assert asked == 150 and client.get("/health").status_code == 200


def test_other_paths_and_methods(running: Served) -> None:
    _, client = running
    assert client.get(CHAT).status_code == 405
    assert "POST /v1/completions" in client.get("/nowhere").json()["error"]["message"]
    assert CHAT in client.get("/openapi.json").json()["paths"]


def test_a_full_queue_refuses_and_a_client_that_leaves_frees_its_slot(folder: Path, tmp_path: Path) -> None:
    with (
        language(folder, tmp_path / "log", *FOREVER, "--queue", "1") as (process, client),
        ThreadPoolExecutor(1) as pool,
    ):
        with client.stream("POST", COMPLETE, json=forever()) as endless:
            chunks = events(endless)  # httpx closes the connection with the iterator
            next(chunks)
            waiting = pool.submit(httpx.post, process.url + COMPLETE, json={"prompt": "b", "max_tokens": 3}, timeout=60)
            until(lambda: metric(client, "mangakd_queue_texts") == 1)
            refused = client.post(COMPLETE, json={"prompt": "c"})
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["type"] == "rate_limit_exceeded"
            assert not waiting.done()
        assert waiting.result().json()["usage"]["completion_tokens"] == 3
        until(lambda: 'path="/v1/completions",status="499"' in client.get("/metrics").text)
        engine = engine_of(process)

        def resting() -> bool:  # the answer that nobody reads would take minutes
            return engine.cpu_percent(0.3) < 20

        until(resting)


def test_memory_is_bounded_under_load(folder: Path, tmp_path: Path) -> None:
    """Many different prompts, and many large bodies at once: neither process grows with their number."""
    words = ("--context", "1024", "--slots", "2", "--queue", "2", "--max-characters", "2000", "--max-body", "2000000")
    with language(folder, tmp_path / "log", *words) as (process, client), ThreadPoolExecutor(24) as pool:

        def ask(i: int) -> int:
            return client.post(COMPLETE, json={"prompt": f"{i:04d}" * 150, "max_tokens": 1}).status_code

        def ask_large(_: int) -> int:
            body = json.dumps({"prompt": "a" * 1_900_000})
            return httpx.post(process.url + COMPLETE, content=body, timeout=60).status_code

        front, engine = psutil.Process(process.popen.pid), engine_of(process)
        assert [ask(i) for i in range(5)] == [200] * 5
        before = front.memory_info().rss, engine.memory_info().rss
        assert [ask(i) for i in range(5, 45)] == [200] * 40
        assert set(pool.map(ask_large, range(48))) <= {400, 429}  # 24 bodies at once are 46 MB
        after = front.memory_info().rss, engine.memory_info().rss
        growth = [(b - a) / 1e6 for a, b in zip(before, after, strict=True)]
        assert growth[0] < 30 and growth[1] < 30, growth
        assert ask(0) == 200
