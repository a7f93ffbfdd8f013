"""/rerank and /embed as text-embeddings-inference has them, and /v1/embeddings as OpenAI has it, over HTTP and on Lambda."""

import asyncio
import base64
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

try:
    import fastapi  # noqa: F401
    import httpx
    import uvicorn  # noqa: F401
except ImportError as missing:
    pytest.skip(f"the service and its client: pip install fastapi uvicorn httpx ({missing})", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from made_variant import MAX_LENGTH, copied, ranker, variant, write_manifest
from serving_client import served

from mangakd.core.spec import Head
from mangakd.runtime import load, watch
from mangakd.runtime.answers import sigmoid
from mangakd.runtime.question import Limits
from mangakd.runtime.routes import ROUTES
from mangakd.runtime.service import create_app

QUERY, DOCUMENTS = "where is my order?", ["refund", "it is on its way", "", "東京 🎌", "refund"]
LONG = "refund " * 200
VECTOR = Head("vector", 5)
Ask = Callable[..., httpx.Response]


def running(folder: Path, log: Path) -> Iterator[Ask]:
    with (
        served(folder, log, "--max-texts", "8", "--linger", "0") as process,
        httpx.Client(base_url=process.url, timeout=30) as client,
    ):
        yield lambda path, **body: client.post(path, content=json.dumps(body))


@pytest.fixture(scope="module")
def rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from running(ranker(), tmp_path_factory.mktemp("rank") / "log")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copied(variant(VECTOR), tmp_path_factory.mktemp("embedder"))
    more = {"prompts": {"query": "query: "}, "head": asdict(VECTOR), "output": "embedding"}
    write_manifest(folder, format=3, **more)
    return folder


@pytest.fixture(scope="module")
def embed(embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from running(embedder, tmp_path_factory.mktemp("embed") / "log")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_ranks(rank: Ask) -> None:
    own = load(ranker(), 1).rank(QUERY, DOCUMENTS)
    answer = rank("/rerank", query=QUERY, texts=DOCUMENTS, model="any")
    assert answer.status_code == 200 and [set(each) for each in answer.json()] == [{"index", "score"}] * 5
    assert [each["index"] for each in answer.json()] == [each["index"] for each in own]
    chances = sigmoid(np.array([each["score"] for each in own]))
    assert [each["score"] for each in answer.json()] == pytest.approx(chances, abs=1e-6)
    raw = rank("/", query=QUERY, texts=DOCUMENTS, raw_scores=True, return_text=True, truncate=True).json()
    assert [each["score"] for each in raw] == pytest.approx([each["score"] for each in own], abs=1e-5)
    assert [each["text"] for each in raw] == [DOCUMENTS[each["index"]] for each in own]


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"texts": ["a"]}, 422, "Validation", "query is missing or null"),
        ({"query": 3, "texts": ["a"]}, 422, "Validation", "query is a number"),
        ({"query": "a", "texts": "b"}, 422, "Validation", "texts is a string; send a list"),
        ({"query": "a", "texts": [None]}, 422, "Validation", "texts[0] is missing or null"),
        ({"query": "a", "texts": ["b"], "raw_scores": "yes"}, 422, "Validation", "raw_scores is 'yes'"),
        ({"query": "a", "texts": ["b"], "truncation_direction": "Left"}, 422, "Validation", "cuts texts on the right"),
        ({"query": "a", "texts": []}, 400, "Empty", "texts is empty"),
        ({"query": "a", "texts": ["b"] * 9}, 413, "Validation", "texts holds 9 texts; send at most 8"),
        ({"query": "a", "texts": ["b" * 20_001]}, 413, "Validation", "texts[0] has 20,001 characters"),
        ({"query": LONG, "texts": ["b"]}, 413, "Validation", "a query is never cut"),
        ({"query": "a", "texts": [LONG], "truncate": False}, 413, "Validation", f"at most {MAX_LENGTH} tokens"),
    ],
)
def test_wrong_ranking_questions(rank: Ask, body: dict[str, Any], status: int, kind: str, words: str) -> None:
    answer = rank("/rerank", **body)
    assert answer.status_code == status and answer.json()["error_type"] == kind
    assert words in answer.json()["error"] and set(answer.json()) == {"error", "error_type"}


def test_a_long_query_does_not_fail_other_questions_of_its_batch(rank: Ask) -> None:
    assert rank("/rerank", query=LONG, texts=[LONG]).status_code == 413
    assert rank("/rerank", query=QUERY, texts=[LONG], truncate=True).status_code == 200


def test_embeddings(embed: Ask, embedder: Path) -> None:
    model = load(embedder, 1)
    rows = model.embed(DOCUMENTS)
    np.testing.assert_allclose(embed("/embed", inputs=DOCUMENTS).json(), unit(rows), atol=1e-6)
    np.testing.assert_allclose(embed("/embed", inputs=DOCUMENTS, normalize=False).json(), rows, atol=1e-5)
    np.testing.assert_allclose(embed("/", inputs="refund", dimensions=2).json(), unit(rows[:1, :2]), atol=1e-6)
    prompted = embed("/embed", inputs="refund", prompt_name="query", truncate=False, truncation_direction="right")
    np.testing.assert_allclose(prompted.json(), unit(model.embed(["refund"], prompt="query")), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "inputs is missing or null"),
        ({"inputs": [["a"]]}, 422, "inputs[0] is a list"),
        ({"inputs": []}, 400, "inputs is empty"),
        ({"inputs": ["a"], "dimensions": 6}, 422, "dimensions is 6; send a number from 1 to 5"),
        ({"inputs": ["a"], "dimensions": True}, 422, "dimensions is True"),
        ({"inputs": ["a"], "prompt_name": "passage"}, 422, "the prompts of this student are: query"),
        ({"inputs": ["a", LONG], "truncate": False}, 413, "send truncate=true to cut them"),
    ],
)
def test_wrong_embedding_questions(embed: Ask, body: dict[str, Any], status: int, words: str) -> None:
    answer = embed("/embed", **body)
    assert answer.status_code == status and words in answer.json()["error"]


def test_openai(embed: Ask, embedder: Path) -> None:
    model = load(embedder, 1)
    rows = unit(model.embed(DOCUMENTS))
    answer = embed("/v1/embeddings", input=DOCUMENTS, model="text-embedding-3-small", user="me").json()
    assert answer["object"] == "list" and answer["model"] == "onnx_fp32"
    assert [(each["object"], each["index"]) for each in answer["data"]] == [("embedding", i) for i in range(5)]
    np.testing.assert_allclose([each["embedding"] for each in answer["data"]], rows, atol=1e-6)
    tokens = sum(model.lengths(DOCUMENTS)[0])
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    packed = embed("/v1/embeddings", input="refund", dimensions=3, encoding_format="base64").json()["data"][0]
    vector = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    np.testing.assert_allclose(vector, unit(rows[:1, :3])[0], atol=1e-6)


def test_openai_s_texts_have_the_default_prompt_and_its_tokens_are_counted(tmp_path: Path) -> None:
    folder, plain = copied(variant(VECTOR), tmp_path), load(variant(VECTOR), 1)
    prompts = {"prompts": {"query": "query: "}, "default_prompt": "query"}
    write_manifest(folder, format=3, head=asdict(VECTOR), output="embedding", **prompts)
    model = load(folder, 1)
    question = ROUTES["/v1/embeddings"].question({"input": ["refund"]}, model, Limits())
    answer = question.answer(model, model.outputs(question.texts))
    vector = unit(plain.embed(["query: refund"]))[0]
    np.testing.assert_allclose(answer["data"][0]["embedding"], vector, atol=1e-6)
    tokens = plain.lengths(["query: refund"])[0][0]
    assert answer["usage"]["prompt_tokens"] == tokens > plain.lengths(["refund"])[0][0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "m"}, "input is missing or null"),
        ({"input": []}, "input is empty"),
        ({"input": [1, 2]}, "input holds tokens"),
        ({"input": [[1, 2]]}, "input holds tokens"),
        ({"input": ["a"], "encoding_format": "hex"}, "encoding_format is 'hex'; send one of float, base64"),
        ({"input": ["a"], "dimensions": 0}, "dimensions is 0"),
        ({"input": ["a"] * 9}, "input holds 9 texts"),
    ],
)
def test_wrong_questions_get_openai_s_error(embed: Ask, body: dict[str, Any], words: str) -> None:
    answer = embed("/v1/embeddings", **body)
    assert answer.status_code == 400 and set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert words in error["message"] and error["type"] == "invalid_request_error" and error["param"] is None


def test_a_student_says_what_it_cannot_do(rank: Ask, embed: Ask) -> None:
    for ask, path, words in (
        (rank, "/embed", "this student answers with the score of a query with a document; ask POST /rerank"),
        (rank, "/predict", "ask POST /rerank"),
        (embed, "/rerank", "this student answers with 5 dimensions; ask POST /embed"),
    ):
        answer = ask(path, query="a", texts=["a"], inputs="a")
        assert answer.status_code == 424 and words in answer.json()["error"]
    refused = rank("/v1/embeddings", input="a")
    assert refused.status_code == 400 and "ask POST /rerank" in refused.json()["error"]["message"]
    assert "there are POST /rerank" in rank("/nothing").json()["error"]


def test_a_classifier_does_neither() -> None:
    async def status(path: str) -> tuple[int, Any]:
        transport = httpx.ASGITransport(create_app(load(variant(), 1)))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answer = await client.post(path, json={"query": "a", "texts": ["a"], "inputs": ["a"]})
            return answer.status_code, answer.json()

    for path in ("/rerank", "/embed"):
        code, body = asyncio.run(status(path))
        assert code == 424 and "3 labels (order, refund, shipping); ask POST /predict" in body["error"]
        assert body["error_type"] == "Backend"


def test_metrics_know_the_routes() -> None:
    assert set(watch.QUESTIONS) == {*ROUTES, "/"}


@pytest.mark.parametrize("kind", ["ranker", "embedder"])
def test_lambda(monkeypatch: pytest.MonkeyPatch, embedder: Path, kind: str) -> None:
    folder = ranker() if kind == "ranker" else embedder
    monkeypatch.setenv("MANGAKD_MODEL", str(folder))
    monkeypatch.delitem(sys.modules, "mangakd.runtime.aws_lambda", raising=False)
    handler = importlib.import_module("mangakd.runtime.aws_lambda").handler

    def http(path: str, **body: Any) -> tuple[int, Any]:
        context = {"http": {"method": "POST", "path": path}}
        answer = handler({"requestContext": context, "body": json.dumps(body)}, None)
        return answer["statusCode"], json.loads(answer["body"])

    model = load(folder, 1)
    if kind == "ranker":
        own = [each["index"] for each in model.rank(QUERY, DOCUMENTS)]
        assert [each["index"] for each in handler({"query": QUERY, "texts": DOCUMENTS})] == own
        for path in ("/rerank", "/", "/stage/other"):
            status, ranks = http(path, query=QUERY, texts=DOCUMENTS)
            assert status == 200 and [each["index"] for each in ranks] == own
        assert http("/embed", inputs="a")[0] == 424 and http("/rerank", query="a", texts=[])[1]["error_type"] == "Empty"
        return
    row = unit(model.embed(["refund"]))
    np.testing.assert_allclose(handler({"inputs": "refund"}), row, atol=1e-6)
    np.testing.assert_allclose(http("/embed", inputs=["refund"])[1], row, atol=1e-6)
    for answer in (handler({"input": "refund", "model": "m"}), http("/v1/embeddings", input="refund")[1]):
        np.testing.assert_allclose(answer["data"][0]["embedding"], row[0], atol=1e-6)
    assert http("/v1/embeddings", input=[])[1]["error"]["type"] == "invalid_request_error"
