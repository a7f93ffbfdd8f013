"""Scores and candidates that others wrote: TREC runs, lines as for MS MARCO, and tables of texts."""

import json
from pathlib import Path

import pytest
from test_ranking_sources import RANKED, groups, write

from mangakd.core.errors import UserError
from mangakd.data.ranking import Beir
from mangakd.data.scored import read_scores

TREC = "q1 Q0 d1 1 3.5 bm25\nq1 Q0 d2 2 -0.5 bm25\n\nq2 Q0 d1 1 7 bm25\n"
WANTED = {("q1", "d1"): 3.5, ("q1", "d2"): -0.5, ("q2", "d1"): 7.0}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (TREC, WANTED),
        ("q1\td1\t3.5\nq1\td2\t-0.5\nq2\td1\t7", WANTED),
        ("qid\tpid\tscore\nq1\td1\t3.5\nq1\td2\t-0.5\nq2\td1\t7", WANTED),
        ("3.5\t-0.5\tq1\td1\td2\n7\t8.25\tq2\td1\td2\n", {**WANTED, ("q2", "d2"): 8.25}),
        ("1\t2\t3\t3.5\t-0.5\n1\t2\t4\t3.5\t8.25\n", {("1", "2"): 3.5, ("1", "3"): -0.5, ("1", "4"): 8.25}),
    ],
)
@pytest.mark.parametrize("name", ["a.tsv", "a.trec"])
def test_lines(content: str, wanted: dict[tuple[str, str], float], name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    scores = read_scores(str(tmp_path / name), "teacher.path")
    assert scores.of == wanted and scores.ids and not scores.ranks


def test_tables(tmp_path: Path) -> None:
    rows = [
        {"query": "one", "documents": ["a", "b"], "scores": [1.5, -2], "more": 1},
        {"query": "two", "documents": ["a"], "scores": [0]},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    scores = read_scores(str(file), "teacher.path")
    assert scores.of == {("one", "a"): 1.5, ("one", "b"): -2.0, ("two", "a"): 0.0} and not scores.ids


def test_ranks_are_no_scores(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("q1\td3\t1\nq1\td1\t2\nq1\td2\t3\nq2\td1\t1\n")
    assert read_scores(str(file), "data.run").ranks
    file.write_text("q1\td3\t1\nq1\td1\t2\nq1\td2\t4\n")
    assert not read_scores(str(file), "data.run").ranks


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", "q1 d1 d2\nq2 d1 d2\n", r"line 1 of teacher\.path=.*a\.tsv holds 'q1 d1 d2', which are no scores .*TREC runs"),
        ("a.tsv", "1 2 3 4 5\n", "line 1 of .* no scores of a known format"),
        ("a.tsv", TREC + "q1 d4 3\n", "line 5 of .*holds 'q1 d4 3', which are no scores"),
        ("a.tsv", TREC + "q3 Q0 d4 3 nan x\n", "line 5 of .*holds 'q3 Q0 d4 3 nan x'"),
        ("a.tsv", TREC + "q1 Q0 d1 3 1 x\n", "line 5 of .*gives 'd1' for 'q1' the score 1, and an earlier place 3.5"),
        ("a.jsonl", '{"query": "a", "documents": ["b"], "scores": [1, 2]}', "line 1 of .* has 1 documents and 2 scores"),
        ("a.jsonl", '{"query": "a", "documents": ["b"], "scores": [null]}', "line 1 of .* has 1 documents and 0 scores"),
        ("a.jsonl", '{"query": "a", "documents": ["b"], "scores": ["x"]}', "line 1 of .*holds 'x', not a list of finite numbers"),
        ("a.jsonl", '{"query": "a", "documents": ["b"]}', r"has no column 'scores'; it has query, documents\. Set teacher\.path"),
        ("a.tsv", "", r"a\.tsv is empty"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_scores(name: str, content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=expected):
        read_scores(str(tmp_path / name), "teacher.path")


def test_candidates_of_a_run(tmp_path: Path) -> None:
    lines = [
        f"q{i}\t{name}\t{score}"
        for i in range(40)
        for name, score in (("coat-0", 1.5), ("lamp-1", 9), ("who", 10), ("lamp-2", 1))
    ]
    run = tmp_path / "run.tsv"
    run.write_text("\n".join(lines))
    read = Beir(path=write(tmp_path), candidates=2, run=str(run)).load(RANKED)
    assert groups(read.test)["where is the lamp of order 31"] == {"Our lamp new item": 0, "Our coat a fine item": None}
    assert groups(read.train)["where is the lamp of order 11"] == {
        "Our lamp new item": 0, "Our coat a fine item": None, "Our lamp a fine item": 2, "it shines": 1,
    }  # fmt: skip
    run.write_text(
        "\n".join(
            f"q{i} {name} {rank}" for i in range(40) for rank, name in enumerate(("lamp-0", "coat-0", "lamp-2"), 1)
        )
    )
    read = Beir(path=write(tmp_path), candidates=2, run=str(run)).load(RANKED)
    assert read.test["documents"][0] == ("Our lamp a fine item", "Our coat a fine item"), "ranks: the smallest first"
    texts = tmp_path / "run.jsonl"
    texts.write_text(json.dumps({"query": "a", "documents": ["b"], "scores": [1]}))
    with pytest.raises(UserError, match=r"run\.jsonl holds texts; a run names queries and documents by ids"):
        Beir(path=write(tmp_path), run=str(texts)).load(RANKED)
