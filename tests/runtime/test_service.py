"""The service as a process on 127.0.0.1, asked over HTTP: right answers, limits, a full queue, counts, strange bodies."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

try:
    import fastapi  # noqa: F401
    import httpx
    import uvicorn  # noqa: F401
except ImportError as missing:
    pytest.skip(f"the service and its client: pip install fastapi uvicorn httpx ({missing})", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from made_variant import HEAD, variant
from serving_client import Process, fuzz, served, strange_bodies

from mangakd.core.errors import UserError
from mangakd.runtime import load
from mangakd.runtime.question import Limits
from mangakd.runtime.service import Settings, create_app

GATED = str(Path(__file__).parent / "gated_serve.py")
LONG = "order " * 100  # is computed beside the event loop
TEXTS = ["where is my order?", "", "refund " * 200, "東京 🎌", "\ud83d"]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with served(variant(), tmp_path_factory.mktemp("served") / "log", "--max-texts", "64", "--linger", "0") as running:
        yield running


@pytest.fixture
def client(process: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=30) as client:
        yield client


def ask(client: httpx.Client, texts: list[str], **more: Any) -> httpx.Response:
    return client.post("/predict", content=json.dumps({"texts": texts, **more}))  # ASCII: JSON may hold half a pair


def test_answers_are_the_library_s(client: httpx.Client) -> None:
    answer = ask(client, TEXTS, top=2)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    for given, own in zip(answer.json()["predictions"], load(variant(), 1).predict(TEXTS, top=2), strict=True):
        assert given["label"] == own["label"] and list(given["probabilities"]) == list(own["probabilities"])
        assert given["probability"] == pytest.approx(own["probability"], abs=1e-5)


def test_many_at_once_get_their_own_answers(client: httpx.Client) -> None:
    texts = [f"{word} number {i}" for i in range(20) for word in ("order", "refund", "shipping")]
    right = load(variant(), 1).predict(texts, top=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: ask(client, [text], top=1).json()["predictions"][0], texts))
    assert [a["label"] for a in answers] == [r["label"] for r in right]
    assert [a["probability"] for a in answers] == pytest.approx([r["probability"] for r in right], abs=1e-5)


def test_wrong_questions(client: httpx.Client) -> None:
    assert ask(client, ["a"] * 65).json() == {"error": "texts holds 65 texts; send 1 to 64 at a time."}
    assert ask(client, ["a" * 20_001]).status_code == 422
    for body, reason in (
        (b"{", "no JSON"),
        (b"", "empty"),
        (b"\xff", "no UTF-8"),
        ('{"texts": ["a"]}'.encode("utf-16"), "no UTF-8"),
    ):
        answer = client.post("/predict", content=body)
        assert answer.status_code == 400 and reason in answer.json()["error"]
    assert client.get("/predict").status_code == 405 and client.get("/predict").headers["allow"] == "POST"
    assert "POST /predict" in client.get("/nothing").json()["error"]


def test_large_bodies_are_refused_before_they_are_read(process: Process, client: httpx.Client) -> None:
    host, port = process.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sent:  # a terabyte is announced, nothing follows
        sent.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
        assert sent.recv(100).startswith(b"HTTP/1.1 413 ")
    chunks = (b" " * 100_000 for _ in range(11))  # no length is announced
    assert client.post("/predict", content=chunks).status_code == 413


def test_request_ids(client: httpx.Client) -> None:
    named = client.get("/health", headers={"x-request-id": "shop-42.a_b"})
    assert named.headers["x-request-id"] == "shop-42.a_b"
    for bad in ("a b", "x" * 65, '"', "<script>"):
        made = client.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]
        assert len(made) == 32 and made.isalnum()
    assert ask(client, []).headers["x-request-id"]  # errors have one too


def test_health_and_docs(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ready", "variant": "onnx_fp32"}
    assert client.head("/health").status_code == 200
    asked = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
    assert "texts" in asked["content"]["application/json"]["schema"]["properties"]


def test_metrics_count(client: httpx.Client) -> None:
    def number(line: str) -> float:
        found = [
            row.rpartition(" ")[2] for row in client.get("/metrics").text.splitlines() if row.startswith(line + " ")
        ]
        return float(found[0]) if found else 0

    lines = ('mangakd_requests_total{path="/predict",status="200"}', "mangakd_texts_total", "mangakd_batch_texts_sum")
    before = [number(line) for line in lines]
    ask(client, ["a", "b", "c"])
    client.get("/made/up/path")
    assert [number(line) - was for line, was in zip(lines, before, strict=True)] == [1, 3, 3]
    assert number('mangakd_requests_total{path="other",status="404"}') > 0 and number("mangakd_ready") == 1
    assert "made/up" not in client.get("/metrics").text


def test_strange_bodies_neither_break_it_nor_get_an_answer(process: Process, client: httpx.Client) -> None:
    counts = fuzz(process.url, strange_bodies(2000))
    assert sum(counts.values()) == 2000 and all(counts[status] > 20 for status in (200, 400, 413, 422))
    assert process.popen.poll() is None and ask(client, ["still there?"]).status_code == 200


def test_what_is_no_http_does_not_break_it(process: Process, client: httpx.Client) -> None:
    host, port = process.url.removeprefix("http://").split(":")
    for noise in (
        b"\x00\xff" * 50 + b"\r\n\r\n",
        b"GET / HTTP/x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\n" + b"a" * 70_000,
    ):
        with socket.create_connection((host, int(port)), timeout=10) as sent:
            sent.sendall(noise)
            assert sent.recv(100).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    with socket.create_connection((host, int(port)), timeout=10) as gone:
        gone.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")  # and leaves
    assert ask(client, ["still there?"]).status_code == 200


def test_a_full_queue_answers_429_at_once(tmp_path: Path) -> None:
    """Two texts are computed and two may wait: the fifth is refused meanwhile, and the others are answered."""
    gate = tmp_path / "gate"
    gate.touch()
    words = ("--queue", "2", "--max-texts", "2", "--linger", "0")
    with (
        served(variant(), tmp_path / "log", *words, script=(GATED, str(gate))) as process,
        httpx.Client(base_url=process.url, timeout=30) as client,
    ):
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(ask, client, [LONG, LONG])]
            while "mangakd_computing_texts 2" not in client.get("/metrics").text:
                assert not waiting[0].done()
            waiting += [pool.submit(ask, client, ["order"]) for _ in range(2)]
            while "mangakd_queue_texts 2" not in client.get("/metrics").text:
                assert not any(one.done() for one in waiting)
            refused = ask(client, ["order"])
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1" and "error" in refused.json()
            assert not any(one.done() for one in waiting)
            gate.unlink()
            assert [one.result().status_code for one in waiting] == [200, 200, 200]
        assert ask(client, ["order"]).status_code == 200


def test_the_log_is_json_and_holds_no_text(process: Process, client: httpx.Client) -> None:
    ask(client, ["my card is private"])
    client.post("/predict", content=b'{"texts": {"private": 1}}', headers={"x-request-id": "log-test"})
    while "log-test" not in process.text or not process.text.endswith(
        "\n"
    ):  # a line is written after its answer is sent
        assert process.popen.poll() is None
        time.sleep(0.01)
    mine = [line for line in process.lines if line.get("request_id") == "log-test"]  # each is JSON, or this raises
    assert [(line["status"], line["path"], line["method"]) for line in mine] == [(422, "/predict", "POST")]
    assert "private" not in process.text and "traceback" not in process.text


class Broken:
    """A model that fails when asked."""

    manifest = type("Manifest", (), {"variant": "x", "backend": "y", "head": HEAD, "decoding": None})
    use = "predict(texts)"

    def outputs(self, texts: list[str], batch_size: int) -> Any:
        raise RuntimeError("weights on fire")


def in_process(app: Any, *requests: tuple[str, str, Any]) -> list[httpx.Response]:
    async def whole() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            return [await client.request(method, path, content=content) for method, path, content in requests]

    return asyncio.run(whole())


def test_a_model_that_fails_is_a_500_with_an_id_and_a_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Broken())  # type: ignore[arg-type]
    failed, counted = in_process(app, ("POST", "/predict", b'{"texts": ["a"]}'), ("GET", "/metrics", None))
    assert failed.status_code == 500 and "fire" not in failed.text and len(failed.headers["x-request-id"]) == 32
    assert 'mangakd_requests_total{path="/predict",status="500"} 1' in counted.text
    assert "weights on fire" in caplog.text


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def never() -> Any:
        yield b"{"
        await asyncio.sleep(30)

    app = create_app(Broken(), Settings(body_seconds=0.05))  # type: ignore[arg-type]
    assert in_process(app, ("POST", "/predict", never()))[0].status_code == 408


def test_settings_that_cannot_work_are_told() -> None:
    with pytest.raises(UserError, match="a queue of 10 texts could never take a question of 64"):
        Settings(queue=10, limits=Limits(texts=64))
