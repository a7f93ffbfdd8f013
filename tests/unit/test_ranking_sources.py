"""Groups of documents from triples and from folders in BEIR's layout, with BM25 candidates."""

import json
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mangakd.core.errors import UserError
from mangakd.data.bm25 import Bm25, words
from mangakd.data.ranking import Beir, Triples, pairs_of
from mangakd.data.rows import Columns, Rows

RANKED: Columns = {"query": "text", "documents": "texts", "grades": "numbers"}
THINGS = ("teapot", "lamp", "coat", "knife", "scale", "wallet", "stove", "chair", "jumper", "frame")


def corpus() -> list[dict[str, Any]]:
    """Three documents of each thing: two with its name, one that BM25 cannot find."""
    return [
        {"_id": f"{thing}-{i}", "title": f"Our {thing}" if i < 2 else "", "text": ["a fine item", "new item", "it shines"][i]}
        for thing in THINGS
        for i in range(3)
    ]  # fmt: skip


def queries() -> list[dict[str, Any]]:
    return [{"_id": f"q{i}", "text": f"where is the {THINGS[i % 10]} of order {i}"} for i in range(40)]


def judgements(numbers: range) -> list[tuple[str, str, Any]]:
    """Of query i: one document that BM25 finds, one that it does not, and one that nobody wants."""
    return [(f"q{i}", f"{THINGS[i % 10]}-{place}", grade) for i in numbers for place, grade in ((0, 2), (2, 1), (1, 0))]


def write(folder: Path, **changes: Any) -> str:
    """changes: name of a file → its objects or lines; None leaves the file out."""
    lines = {
        "corpus": corpus(), "queries": queries(), "train": judgements(range(24)), "dev": judgements(range(24, 30)),
        "test": judgements(range(30, 40)),
    } | changes  # fmt: skip
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, content in lines.items():
        if content is None:
            continue
        if name in ("corpus", "queries"):
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
        else:
            rows = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in content)]
            (folder / "qrels" / f"{name}.tsv").write_text("\n".join(rows))
    return str(folder)


def groups(rows: Rows) -> dict[str, dict[str, float | None]]:
    """None for a document that nobody judged."""
    return {
        query: {text: None if grade != grade else grade for text, grade in zip(documents, grades, strict=True)}
        for query, documents, grades in zip(rows["query"], rows["documents"], rows["grades"], strict=True)
    }


def test_groups_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read = Beir(path=write(tmp_path), candidates=2).load(RANKED)
    assert {name: len(part) for name, part in read.splits.items()} == {"train": 24, "validation": 6, "test": 10}
    lamp = {"Our lamp new item": 0, "Our lamp a fine item": 2}
    assert groups(read.test)["where is the lamp of order 31"] == lamp, "test has what BM25 finds and nothing else"
    assert groups(read.train)["where is the lamp of order 11"] == {**lamp, "it shines": 1}
    assert read.train.where(0) == f"line 1 of data.path={tmp_path}/queries.jsonl" and read.test.numbers[0] == 31
    assert caplog.text.count("first 2 candidates hold 50.0 % of the relevant documents of a query") == 3
    assert "6 queries" in caplog.text and "which bounds the scores" in caplog.text
    texts = [f"{doc['title']} {doc['text']}".strip() for doc in corpus()]
    for rows in read.splits.values():
        for query, documents in zip(rows["query"], rows["documents"], strict=True):
            assert documents[:2] == tuple(texts[i] for i in Bm25(texts).best(query, 2))


def test_candidates_share_a_word_with_the_query(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = [*queries()[:39], {"_id": "q39", "text": "xylophone"}]
    with caplog.at_level(logging.WARNING):
        read = Beir(path=write(tmp_path, queries=asked), candidates=50).load(RANKED)
    assert all("item" in document for documents in read.test["documents"] for document in documents)
    assert (
        len(read.test) == 9 and "queries without any candidate, left out: 1; first: line 40, 'xylophone'" in caplog.text
    )
    assert all(len(documents) < 50 for documents in read.test["documents"])


def test_splits_that_the_folder_lacks_have_no_documents_added(tmp_path: Path) -> None:
    folder = write(tmp_path, train=judgements(range(40)), dev=None, test=None)
    read = Beir(path=folder, candidates=2).load(RANKED)
    assert {name: len(part) for name, part in read.splits.items()} == {"train": 32, "validation": 4, "test": 4}
    assert all(len(group) == 2 for name in ("validation", "test") for group in read.splits[name]["documents"])
    assert all(len(group) == 3 for group in read.train["documents"])
    queries_of = [{*part["query"]} for part in read.splits.values()]
    assert not any(queries_of[i] & queries_of[j] for i, j in ((0, 1), (0, 2), (1, 2)))


def test_other_folders_and_files_of_groups(tmp_path: Path) -> None:
    file = tmp_path / "groups.jsonl"
    file.write_text(
        "\n".join(json.dumps({"query": f"query {i}", "documents": ["a", "b"], "grades": [1, 0]}) for i in range(30))
    )
    scored = write(tmp_path / "other", train=None)
    read = Beir(path=str(file), test_path=scored, candidates=2).load(RANKED)
    assert {name: len(part) for name, part in read.splits.items()} == {"train": 27, "validation": 3, "test": 10}
    assert all(len(group) == 2 for group in read.test["documents"])
    both = Beir(path=write(tmp_path / "own"), test_path=str(file), candidates=2).load(RANKED)
    assert len(both.test) == 30 and len(both.validation) == 6


def test_what_a_folder_may_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers as ids, no titles, documents without a text, and judgements of documents that are not there."""
    documents = [{"_id": i, "text": f"{THINGS[i % 10]} {i}" if i < 12 else " "} for i in range(13)]
    asked = [{"_id": i, "text": THINGS[i]} for i in range(10)]
    judged = [(i, i, 1) for i in range(10)] + [(0, 12, 1), (3, 99, 1), (4, 4, 1.0)]
    with caplog.at_level(logging.WARNING):
        read = Beir(
            path=write(tmp_path, corpus=documents, queries=asked, train=judged, dev=judged[:2], test=judged[2:4])
        ).load(RANKED)
    assert groups(read.train)["teapot"] == {"teapot 0": 1, "teapot 10": None} and len(read.train) == 10
    assert "documents without a text, left out: 1; first: 12" in caplog.text
    assert "documents that corpus.jsonl does not have, left out: 2; first: line 12, '12'" in caplog.text


def test_equal_texts_are_one_document(tmp_path: Path) -> None:
    copies = [{"_id": f"copy-{i}", "text": "Our lamp a fine item"} for i in range(2)]
    judged = [*judgements(range(24)), ("q1", "copy-0", 3)]
    read = Beir(path=write(tmp_path, corpus=corpus() + copies, train=judged), candidates=4).load(RANKED)
    assert groups(read.train)["where is the lamp of order 1"]["Our lamp a fine item"] == 3
    assert all(len({*documents}) == len(documents) for documents in read.train["documents"])


Q, D = "q1", "lamp-0"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train": None}, r"has no qrels/train\.tsv; qrels has dev\.tsv, test\.tsv.*set data\.test_path="),
        ({"train": [(Q, D, -1)]}, r"line 2 of data\.path=.*train\.tsv has the grade -1: a grade is 0"),
        ({"train": [(Q, D, 1), (Q, D, "high")]}, r"line 3 of .*train\.tsv holds 'high', not a grade"),
        ({"train": [(Q, D, "inf")]}, r"line 2 of .*holds 'inf', not a grade"),
        ({"train": [(Q, D, "")]}, "line 2 of .* has the grade : a grade is 0"),
        ({"train": [(Q, D, 1), (Q, D, 2)]}, "line 3 of .*the document lamp-0 of the query q1 the grade 2, and an earlier line 1"),
        ({"train": [("who", D, 1)]}, r"the query who is not in data\.path=.*queries\.jsonl"),
        ({"train": [("", D, 1)]}, "line 2 of .* has no id"),
        ({"corpus": corpus() + corpus()[3:4]}, r"line 31 of .*corpus\.jsonl has the _id lamp-0, which an earlier line has"),
        ({"queries": queries() + queries()[:1]}, r"line 41 of .*queries\.jsonl has the _id q0, which an earlier"),
        ({"corpus": [{"id": "a", "text": "b"}]}, r"corpus\.jsonl has no column '_id'; it has id, text\. A BEIR folder holds"),
        ({"corpus": [{"_id": "a", "text": ["b"]}]}, r"line 1 of .*corpus\.jsonl holds a list, not a text"),
        ({"queries": [{**q, "text": ""} for q in queries()]}, r"line 1 of data\.path=.*queries\.jsonl has no query \(and"),
        ({"corpus": None}, r"data\.path=.*corpus\.jsonl: there is no such file"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        Beir(path=write(tmp_path, **changes)).load(RANKED)


def test_broken_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.candidates=0 must be a whole number from 1 on"):
        Beir(path=write(tmp_path), candidates=0).load(RANKED)
    with pytest.raises(UserError, match=r"data\.path is not set"):
        Beir(test_path=write(tmp_path)).load(RANKED)
    with pytest.raises(
        UserError, match=r"no column 'text' of kind text, which the task reads; it has query, documents, grades"
    ):
        Beir(path=write(tmp_path)).load()


def test_a_tasks_own_names_of_columns_are_no_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = {name: name for name in RANKED}
    with caplog.at_level(logging.WARNING):
        Beir(path=write(tmp_path), columns=own).load(RANKED)
        Triples(path=triples(tmp_path / "a.tsv", ROWS * 9), columns=own).load(RANKED)
    assert "ignored" not in caplog.text


ROWS = [
    (f"{thing} {i}", f"good {thing}", f"bad {other}") for i in range(2) for thing in THINGS for other in ("x", "y", "x")
]


def triples(file: Path, rows: list[tuple[str, str, str]], head: str = "query\tpositive\tnegative") -> str:
    file.write_text("\n".join([head, *map("\t".join, rows)]))
    return str(file)


def test_triples_of_a_query_are_one_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extra = [("lamp  0", "good light", "bad z"), ("late", "twice", "twice")]
    with caplog.at_level(logging.WARNING):
        read = Triples(path=triples(tmp_path / "a.tsv", [*ROWS, *extra])).load(RANKED)
    every = {query: group for rows in read.splits.values() for query, group in groups(rows).items()}
    assert len(every) == 21 and every["lamp 0"] == {"good lamp": 1, "bad x": 0, "bad y": 0, "good light": 1, "bad z": 0}
    assert every["late"] == {"twice": 1}
    assert "positive and negative for one query, read as positive: 1; first: line 63, 'twice'" in caplog.text


def test_columns_of_triples_have_keys_of_their_own(tmp_path: Path) -> None:
    file = triples(tmp_path / "a.tsv", ROWS, "anchor\tpos\tneg")
    assert (
        len(Triples(path=file, query_column="anchor", positive_column="pos", negative_column=2).load(RANKED).train)
        == 16
    )
    with pytest.raises(UserError, match=r"no column 'positive'; it has anchor, pos, neg\. Set data\.positive_column"):
        Triples(path=file, query_column="anchor").load(RANKED)
    with pytest.raises(UserError, match=r"line 2 of data\.path=.* has no text at place 2 of its documents"):
        Triples(path=triples(tmp_path / "b.tsv", [(q, p, "") for q, p, _ in ROWS])).load(RANKED)


# --- tasks of two texts ---------------------------------------------------------------------------------------------

PAIRS: Columns = {"anchor": "text", "positive": "text"}


def test_queries_with_their_relevant_documents(tmp_path: Path) -> None:
    read = Beir(path=write(tmp_path)).load(PAIRS)
    assert {name: len(part) for name, part in read.splits.items()} == {"train": 48, "validation": 12, "test": 20}
    pairs = [*zip(read.test["anchor"], read.test["positive"], strict=True)]
    assert pairs[2:4] == [("where is the lamp of order 31", text) for text in ("Our lamp a fine item", "it shines")]
    assert read.test.numbers[2:4] == [32, 32]
    part = Beir(path=write(tmp_path / "other", train=judgements(range(40)), dev=None, test=None)).load(PAIRS)
    anchors = [{*rows["anchor"]} for rows in part.splits.values()]
    assert not any(anchors[i] & anchors[j] for i, j in ((0, 1), (0, 2), (1, 2))), "queries stay on one side"


def test_triples_with_the_negatives_of_their_group(tmp_path: Path) -> None:
    read = Triples(path=triples(tmp_path / "a.tsv", ROWS)).load({**PAIRS, "negatives": "texts"})
    rows = [
        row
        for part in read.splits.values()
        for row in zip(part["anchor"], part["positive"], part["negatives"], strict=True)
    ]
    assert len(rows) == 20 and ("lamp 0", "good lamp", ("bad x", "bad y")) in rows


def test_other_relevant_documents_of_a_query_are_no_negatives() -> None:
    groups = Rows({"query": ["q"], "documents": [("a", "b", "c", "d")], "grades": [(2.0, 0.0, 1.0, 0.0)]}, [7])
    pairs = pairs_of(groups)
    assert pairs["anchor"] == ["q", "q"] and pairs["positive"] == ["a", "c"] and pairs.numbers == [7, 7]
    assert pairs["negatives"] == [("b", "d"), ("b", "d")]


# --- BM25 ------------------------------------------------------------------------------------------------------------


def by_formula(query: str, documents: list[str]) -> np.ndarray:
    """Σ over the query's words of log(1 + (N − n + ½) / (n + ½)) · f / (f + k₁ (1 − b + b · length / mean length))."""
    counts = [Counter(words(text)) for text in documents]
    mean = sum(each.total() for each in counts) / len(counts)
    scores = np.zeros(len(documents))
    for word in words(query):
        n = sum(word in each for each in counts)
        idf = math.log(1 + (len(counts) - n + 0.5) / (n + 0.5))
        for i, each in enumerate(counts):
            scores[i] += idf * each[word] / (each[word] + 1.5 * (0.25 + 0.75 * each.total() / mean))
    return scores


def test_scores_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    documents = [" ".join(rng.choice([*THINGS, "the"], rng.integers(1, 20))) for _ in range(40)]
    index = Bm25(documents)
    for query in ("the Lamp", "coat, coat!", "unknown stove"):
        np.testing.assert_allclose(index.scores(query), by_formula(query, documents), rtol=1e-5)
        best = index.best(query, 7)
        assert best.tolist() == np.argsort(-index.scores(query), kind="stable")[:7].tolist()
    assert not index.scores("xylophone").any() and not len(index.best("", 5))
    assert not len(Bm25(["!", "?"]).best("lamp", 3)), "documents without a word"
    ties = Bm25(["lamp a", "lamp b", "coat", "lamp c"])
    assert ties.best("lamp", 2).tolist() == [0, 1] and ties.best("lamp", 9).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wie GROSS? vol.34", ["wie", "gross", "vol", "34"]),
        ("ＯＮＥ-piece", ["one", "piece"]),
        ("進撃の巨人 鬼 part2", ["進撃", "撃の", "の巨", "巨人", "鬼", "part2"]),
        ("... !", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert [*words(text)] == expected


def test_bm25_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(UserError, match=r"needs the package bm25s: pip install 'mangakd\[ranking\]'"):
        Bm25(["lamp"])
