"""Ranking of documents, and embeddings cut to dims and with prompts, against the model written in numpy."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_variant import MAX_LENGTH, copied, expected, ranker, variant, write_manifest

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.runtime import Model, load
from mangakd.runtime.answers import ranking
from mangakd.runtime.manifest import read

QUERY = "where is my order?"
DOCUMENTS = ["it is on its way", "", "refund " * 200, "東京 🎌 café", "it is on its way", "\ud83d alone"]
VECTOR = Head("vector", 5)


def scores(model: Model, query: str = QUERY) -> np.ndarray:
    """Pair by pair."""
    return np.array([expected(e.ids, 1)[0] for e in model._tokeniser([(query, text) for text in DOCUMENTS])])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_documents_are_ranked_by_their_scores(backend: str, batch_size: int) -> None:
    model = load(ranker(backend), threads=1)
    answer, right = model.rank(QUERY, DOCUMENTS, batch_size), scores(model)
    assert [each["index"] for each in answer] == np.argsort(-right, kind="stable").tolist()
    assert [each["score"] for each in answer] == pytest.approx(sorted(right, reverse=True), abs=1e-5)
    places = [each["index"] for each in answer]
    assert places.index(0) + 1 == places.index(4), "equal documents keep their order"


def test_of_equal_scores_the_first_document_is_first() -> None:
    assert [each["index"] for each in ranking(np.array([[1.0], [2.0], [1.0], [2.0]]))] == [1, 3, 0, 2]


def test_the_document_is_cut_and_never_the_query() -> None:
    model = load(ranker(), threads=1)
    query = "order " * (MAX_LENGTH - 5)
    (pair,) = model._tokeniser([(query, "refund " * 50)])
    ids, types = pair.ids, pair.type_ids
    assert len(ids) == MAX_LENGTH and (ids[0], ids[-1]) == (101, 102)
    assert types.count(1) == 3 and ids.count(ids[1]) == MAX_LENGTH - 5  # two tokens of the document and [SEP]
    (empty,) = model._tokeniser([("order", "")])
    assert empty.ids.count(102) == 2, "an empty document is still the second text of a pair"


@pytest.mark.parametrize(("words", "fits"), [(MAX_LENGTH - 4, True), (MAX_LENGTH - 3, False), (500, False)])
def test_a_query_must_leave_room_for_a_document(words: int, fits: bool) -> None:
    model, query = load(ranker(), threads=1), "order " * words
    if fits:
        assert len(model.rank(query, DOCUMENTS)) == len(DOCUMENTS)
        return
    for documents in (["", "a"], [""], []):  # whatever the documents are
        with pytest.raises(UserError, match=f"the query has {MAX_LENGTH - 3} tokens or more.*a query is never cut"):
            model.rank(query, documents)


def test_no_documents_no_ranks() -> None:
    assert load(ranker(), threads=1).rank(QUERY, []) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.rank(3, ["a"]), "query is a int"),
        (lambda m: m.rank("a", "b"), "documents is one str"),
        (lambda m: m.rank("a", ["b", None]), r"documents\[1\] is a NoneType"),
        (lambda m: m.predict(["a"]), r"the score of a query with a document: use rank\(query, documents\)"),
        (lambda m: m.embed(["a"]), r"use rank\(query, documents\)"),
    ],
)
def test_wrong_questions_to_a_ranker(call: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call(load(ranker(), threads=1))


def test_students_that_do_not_rank() -> None:
    for head, words in ((Head("score", 1), r"a score: use predict\(texts\)"), (VECTOR, r"5 dimensions: use embed")):
        with pytest.raises(UserError, match=words):
            load(variant(head), threads=1).rank(QUERY, DOCUMENTS)


def embedder(to: Path) -> Model:
    folder = copied(variant(VECTOR), to)
    prompts = {"query": "query: ", "document": ""}
    write_manifest(folder, format=3, head=asdict(VECTOR), output="embedding", prompts=prompts, default_prompt="query")
    return load(folder, threads=1)


def test_dims_are_cut_and_then_normalised(tmp_path: Path) -> None:
    model = load(variant(VECTOR), threads=1)
    whole, short = model.embed(DOCUMENTS), model.embed(DOCUMENTS, dims=3)
    assert not np.allclose(np.linalg.norm(whole, axis=1), 1, atol=0.1), "as the model gives them"
    np.testing.assert_allclose(short, whole[:, :3] / np.linalg.norm(whole[:, :3], axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(model.embed(DOCUMENTS, dims=5), axis=1), 1, atol=1e-6)
    assert short.dtype == np.float32
    for dims in (0, 6, True, 2.5):
        with pytest.raises(UserError, match="this student has 5 dimensions"):
            model.embed(DOCUMENTS, dims=dims)  # type: ignore[arg-type]


def test_sizes_that_were_not_learned_are_warned_about_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copied(variant(VECTOR), tmp_path)
    write_manifest(folder, format=3, head=asdict(VECTOR), output="embedding", dims=[4, 2])
    model = load(folder, threads=1)
    assert model.manifest.dims == (4, 2)
    for dims in (None, 5, 4, 2, 3, 3):
        model.embed(DOCUMENTS, dims=dims)
    assert [each.getMessage() for each in caplog.records] == [
        "dims=3: this student has learned to be cut to 4, 2 dimensions."
    ]


def test_prompts_stand_before_each_text(tmp_path: Path) -> None:
    model, plain = embedder(tmp_path), load(variant(VECTOR), threads=1)
    with_prompt = plain.embed([f"query: {text}" for text in DOCUMENTS])
    np.testing.assert_allclose(model.embed(DOCUMENTS), with_prompt, atol=1e-6)
    np.testing.assert_allclose(model.embed(DOCUMENTS, prompt="query"), with_prompt, atol=1e-6)
    np.testing.assert_allclose(model.embed(DOCUMENTS, prompt="document"), plain.embed(DOCUMENTS), atol=1e-6)
    with pytest.raises(UserError, match="prompt='passage': this student's prompts are query, document"):
        model.embed(DOCUMENTS, prompt="passage")
    with pytest.raises(UserError, match="prompts are none"):
        plain.embed(DOCUMENTS, prompt="query")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"pairs": True}, "pairs"),  # of labels
        ({"pairs": "yes", "head": asdict(Head("score", 1))}, "pairs"),
        ({"pairs": True, "head": asdict(Head("score", 2))}, "pairs"),
        ({"prompts": {"query": 1}}, "prompts"),
        ({"prompts": ["query"]}, "prompts"),
        ({"default_prompt": "query"}, "default_prompt"),
        ({"dims": [0]}, "dims"),
        ({"dims": 64}, "dims"),
    ],
)
def test_manifests_that_say_it_wrongly(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    folder = copied(variant(), tmp_path)
    write_manifest(folder, format=3, **changes)
    with pytest.raises(UserError, match=f"{key} is wrong"):
        read(folder)


def test_older_folders_read_texts_without_prompts(tmp_path: Path) -> None:
    manifest = read(variant())
    assert manifest.content["format"] == 2
    assert (manifest.pairs, dict(manifest.prompts), manifest.default_prompt, manifest.dims) == (False, {}, None, ())
