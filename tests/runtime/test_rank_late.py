"""Ranking by late interaction, against the score written in numpy: a token's vector is a row of a table, of length 1."""

import asyncio
import functools
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_variant import _ROOT, MAX_LENGTH, copied, save_tokenizer, weights, write_manifest

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.runtime import Model, load
from mangakd.runtime.late_model import max_sim
from mangakd.runtime.manifest import read

CLS, SEP, MASK, DOT, FIRST, SECOND = 101, 102, 103, 1012, 2, 3
QUERY = "where is my order?"
DOCUMENTS = ["it is on its way.", "", "refund " * 200, "東京 🎌 café", "it is on its way.", ". . .", "\ud83d alone"]
LATE = {
    "query": {"before": [CLS, FIRST], "after": [SEP], "types": [0, 0, 0, 0]},
    "document": {"before": [CLS, SECOND], "after": [SEP], "types": [0, 0, 0, 0]},
    "query_length": 12, "mask_id": MASK, "attend": False, "skip": [DOT],
}  # fmt: skip
NOTHING = {side: {"before": [], "after": [], "types": [0]} for side in ("query", "document")}


def late(backend: str = "onnxruntime") -> Path:
    """An exported folder of a student of late interaction, made once."""
    return _late(backend)


@functools.cache
def _late(backend: str) -> Path:
    pytest.importorskip("onnx", reason="writes the model: pip install onnx")
    pytest.importorskip(backend, reason=f"runs the model: pip install {backend}")
    from onnx import TensorProto, checker, helper, numpy_helper, save

    folder = Path(_ROOT.name) / f"late_{backend}"
    folder.mkdir()
    save_tokenizer(folder / "tokenizer.json")
    node, shape = helper.make_node, ["batch", "sequence"]
    nodes = [
        node("Gather", ["table", "input_ids"], ["states"]), node("ReduceL2", ["states"], ["size"], axes=[-1], keepdims=1),
        node("Div", ["states", "size"], ["vectors"]),
    ]  # fmt: skip
    takes = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)]
    gives = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [*shape, weights()[0].shape[1]])]
    graph = helper.make_graph(nodes, "late", takes, gives, [numpy_helper.from_array(weights()[0], "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, folder / "model.onnx")
    if backend == "openvino":
        import openvino

        openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)
        (folder / "model.onnx").unlink()
    manifest(folder, backend=backend)
    return folder


def manifest(folder: Path, **changes: Any) -> None:
    content = {
        "head": asdict(Head("score", 1)),
        "output": "vectors",
        "pairs": True,
        "late": LATE,
        "inputs": ["input_ids"],
    }
    write_manifest(folder, format=3, **{**content, **changes})


def ids(model: Model, text: str) -> list[int]:
    """Of a text alone, without special tokens, not cut."""
    tokenizer = model._tokeniser._tokenizer
    tokenizer.no_truncation()
    try:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.enable_truncation(MAX_LENGTH)


def expected(model: Model, query: str, document: str) -> float:
    vectors = weights()[0].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    q = [CLS, FIRST, *ids(model, query), SEP]
    q += [MASK] * (12 - len(q))
    d = [token for token in [CLS, SECOND, *ids(model, document)[: MAX_LENGTH - 3], SEP] if token != DOT]
    return float((vectors[q] @ vectors[d].T).max(axis=1).sum())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_documents_are_ranked_by_their_scores(backend: str, batch_size: int) -> None:
    model = load(late(backend), threads=1)
    assert model.use == "rank(query, documents)" and model.gives == "the score of a query with a document"
    for query in (QUERY, "", "a " * 20):
        right = np.array([[expected(model, query, document)] for document in DOCUMENTS])
        answer = model.rank(query, DOCUMENTS, batch_size)
        order = [each["index"] for each in answer]
        assert sorted(order) == [*range(len(DOCUMENTS))]
        assert (np.diff(right[order, 0]) < 1e-5).all()  # equal scores are in any order of their rounding
        assert [each["score"] for each in answer] == pytest.approx(sorted(right[:, 0], reverse=True), abs=1e-4)
    assert model.rank(QUERY, []) == []


def test_several_queries_at_a_time_and_each_read_once() -> None:
    model, reads = load(late(), threads=1), list[np.ndarray]()
    graph = model._run.graph
    pairs = [(query, document) for document in DOCUMENTS for query in (QUERY, "refund", "where")]
    right = np.array([[expected(model, *pair)] for pair in pairs])
    object.__setattr__(model._run, "graph", lambda arrays: reads.append(arrays["input_ids"]) or graph(arrays))
    np.testing.assert_allclose(model.outputs(pairs, 4), right, atol=1e-4)
    marked = [int((batch[:, 1] == FIRST).sum()) for batch in reads]
    assert sum(marked) == 3 and len(reads) > 6, "three queries, whatever the number of batches"
    reads.clear()
    model.outputs(pairs[:3], 4)
    assert sum(int((batch[:, 1] == FIRST).sum()) for batch in reads) == 3, "nothing is kept between calls"


def test_a_document_of_skipped_tokens_has_the_least_score() -> None:
    query, documents = np.eye(2, 3, dtype=np.float32), np.full((2, 2, 3), np.nan, dtype=np.float32)
    documents[0, 0] = [0, 0.6, 0.8]
    scored = np.array([[True, False], [False, False]])
    np.testing.assert_allclose(max_sim(query, documents, scored), [0.6, -2], atol=1e-6)


def test_the_document_is_cut_and_never_the_query(tmp_path: Path) -> None:
    model = load(late(), threads=1)
    most = MAX_LENGTH - 3
    assert model.lengths([("order", "way " * most), ("order", "way " * (most + 1))]) == ([MAX_LENGTH] * 2, True)
    assert model.lengths([("order", "way " * most)])[1] is False
    assert len(model.rank("order " * most, ["a"])) == 1
    for documents in (["a"], []):
        with pytest.raises(UserError, match=f"more than {most} tokens, .*a query is never cut"):
            model.rank("order " * (most + 1), documents)
    folder = copied(late(), tmp_path)
    tokenizer = {"file": "tokenizer.json", "max_length": MAX_LENGTH, "pad_id": 0, "pad_type_id": 0}
    manifest(folder, tokenizer={**tokenizer, "truncation_side": "left"})
    (pair,) = load(folder, threads=1)._tokeniser([("a", "order " * 40 + "way")])
    assert len(pair) == MAX_LENGTH and pair.document.ids[:2] == [CLS, SECOND]
    assert pair.document.ids[-2:] == [*ids(model, "way"), SEP]
    manifest(folder, late={**LATE, **NOTHING}, tokenizer=tokenizer)
    with pytest.raises(UserError, match=f"more than {MAX_LENGTH - 1} tokens"):  # perhaps the rest of a longer one
        load(folder, threads=1).rank("order " * MAX_LENGTH, ["a"])
    manifest(folder, tokenizer={**tokenizer, "max_length": 3})
    with pytest.raises(UserError, match=r"max_length 3 of .* is too small"):
        load(folder, threads=1)


@pytest.mark.parametrize("attend", [False, True])
def test_the_others_see_mask_tokens_only_where_it_says_so(attend: bool, tmp_path: Path) -> None:
    folder = copied(late(), tmp_path)
    types = {"before": [CLS, FIRST], "after": [SEP], "types": [1, 1, 2, 3]}
    manifest(folder, late={**LATE, "attend": attend, "query": types})
    tokeniser = load(folder, threads=1)._tokeniser
    arrays = tokeniser.pad(
        tokeniser([("order", "a ."), ("order", "b b")]), ["input_ids", "attention_mask", "token_type_ids"]
    )
    (order,) = ids(load(late(), threads=1), "order")
    assert arrays["query_input_ids"].tolist() == [[CLS, FIRST, order, SEP, *[MASK] * 8]]
    assert arrays["query_attention_mask"].tolist() == [[1] * 4 + [int(attend)] * 8]
    assert arrays["query_token_type_ids"].tolist() == [[1, 1, 2, 3, *[0] * 8]]
    assert arrays["query_scored"].tolist() == [[1] * 12] and arrays["query"].tolist() == [[0], [0]]
    assert arrays["scored"].tolist() == [[1, 1, 1, 0, 1], [1] * 5] and not arrays["token_type_ids"].any()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"output": "logits"}, "output"),
        ({"pairs": False}, "late"),
        ({"late": {**LATE, "dims": 8}}, "late"),
        ({"late": {**LATE, "skip": ["."]}}, "late"),
        ({"late": {**LATE, "attend": 1}}, "late"),
        ({"late": {**LATE, "query_length": -1}}, "late"),
        ({"late": {**LATE, "query": {"before": [], "after": [], "types": []}}}, "late"),
        ({"late": {name: value for name, value in LATE.items() if name != "document"}}, "late"),
        ({"late": [1]}, "late"),
    ],
)
def test_manifests_that_say_it_wrongly(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    folder = copied(late(), tmp_path)
    manifest(folder, **changes)
    with pytest.raises(UserError, match=f"{key} is wrong"):
        read(folder)


def test_the_service_and_lambda_give_the_model_s_own_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sigmoid of a sum of cosines would be 1 for every document of a long query."""
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    from mangakd.runtime.service import create_app

    right = load(late(), 1).rank(QUERY, DOCUMENTS[:-1])  # JSON of httpx has no lone surrogate
    body = {"query": QUERY, "texts": DOCUMENTS[:-1]}

    async def answers() -> list[Any]:
        transport = httpx.ASGITransport(create_app(load(late(), 1)))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [await client.post(path, json=body) for path in ("/rerank", "/", "/predict")]

    ranked, main, wrong = asyncio.run(answers())
    assert ranked.json() == main.json() == right and wrong.status_code == 424
    monkeypatch.setenv("MANGAKD_MODEL", str(late()))
    monkeypatch.delitem(sys.modules, "mangakd.runtime.aws_lambda", raising=False)
    handler = importlib.import_module("mangakd.runtime.aws_lambda").handler
    assert handler(body) == right
    http = {"requestContext": {"http": {"method": "POST", "path": "/rerank"}}}
    assert json.loads(handler({**http, "body": json.dumps({**body, "raw_scores": True})})["body"]) == right
