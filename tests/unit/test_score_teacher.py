"""teacher=scores: scores that another model gave and a file keeps reach the pairs that they are of, whatever the order."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract.tiny_models import WORDS, silent, tokenizer

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import Rows
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.classification.task import Classification
from mangakd.tasks.rerank.task import Rerank
from mangakd.teachers.lookup import LookupTeacher
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.scores import Scores

CPU, HEAD = torch.device("cpu"), Head("score", 1)
SIZES = (3, 1, 4, 2)
QUERIES = {f"q{i}": f"{WORDS[i]} {WORDS[i + 1]}" for i in range(12)}
DOCUMENTS = {f"d{i}": " ".join(WORDS[i : i + 5]) for i in range(30)}


def score(query: str, document: str) -> float:
    return float(np.float32(0.37 * WORDS.index(query.split()[0]) - 1.3 * WORDS.index(document.split()[0])))


def rows(start: int) -> Rows:
    """Four queries; documents repeat from query to query."""
    queries = [*QUERIES.values()][start : start + len(SIZES)]
    documents = [tuple([*DOCUMENTS.values()][start + i : start + i + size]) for i, size in enumerate(SIZES)]
    return Rows({"query": queries, "documents": documents}, [7, 8, 9, 10], "data.path=a.jsonl", "line")


ROWS = {name: rows(start) for name, start in (("train", 0), ("validation", 4), ("test", 8))}
TEXTS = {name: SequenceTexts(each, Rerank().sequences) for name, each in ROWS.items()}


def encoded(each: Rows, cache: Path) -> EncodedSplit:
    owners = [query for query, texts in zip(*each.columns.values(), strict=True) for _ in texts]
    texts = [text for texts in each["documents"] for text in texts]
    sides = Tokeniser(tokenizer(), tokenizer(), 16, cache).pairs(owners, texts)
    return EncodedSplit(sides, {}, None, np.concatenate([[0], np.cumsum(SIZES)]))


def context(tmp_path: Path) -> TeacherContext:
    splits = {name: encoded(each, tmp_path) for name, each in ROWS.items()}
    return TeacherContext(HEAD, pytest.fail, splits, tmp_path, CPU, 4, silent, texts=TEXTS)


def jsonl(folder: Path, change: Callable[[list[dict[str, Any]]], object] = lambda rows: None) -> str:
    """change: of the rows, in place."""
    content = [
        {"query": f" {query}", "documents": [*texts], "scores": [score(query, text) for text in texts]}
        for each in ROWS.values()
        for query, texts in zip(*each.columns.values(), strict=True)
    ]
    change(content)
    file = folder / "scores.jsonl"
    file.write_text("\n".join(map(json.dumps, content)))
    return str(file)


def run_of_ids(folder: Path) -> Scores:
    """A TREC run that holds more than is needed, and the folder with the texts."""
    lines = [
        f"{q} Q0 {d} 1 {score(query, text)} x" for q, query in QUERIES.items() for d, text in DOCUMENTS.items()
    ] + ["q99 Q0 d1 1 5 x", "q1 Q0 d99 1 5 x"]
    (folder / "run.trec").write_text("\n".join(lines))
    for name, texts in (("queries", QUERIES), ("corpus", DOCUMENTS)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"_id": i, "text": t}) for i, t in texts.items()))
    return Scores(path=str(folder / "run.trec"), texts=str(folder))


@pytest.mark.parametrize("kind", ["texts", "ids"])
def test_each_pair_has_its_score(kind: str, tmp_path: Path) -> None:
    options = Scores(path=jsonl(tmp_path)) if kind == "texts" else run_of_ids(tmp_path)
    options.check(TEXTS)
    given = context(tmp_path)
    provider = options.provider(given).prepare(CPU, Need(answer=True))
    assert options.models == [] and options.gives(provider.spec) == provider.gives == Need(answer=True)
    assert provider.spec.head == HEAD and provider.spec.name == f"scores of {Path(options.path).name}"
    for name, chosen in (("train", [2, 0, 3]), ("validation", [0, 1, 2, 3]), ("test", [3])):
        batch = given.splits[name].collate(chosen)
        answer = provider(batch)
        wanted = [score(ROWS[name]["query"][i], text) for i in chosen for text in ROWS[name]["documents"][i]]
        assert answer.logits is not None and answer.logits.shape == (len(wanted), 1)
        assert answer.logits[:, 0].tolist() == pytest.approx(wanted, abs=1e-6)
        assert torch.equal(answer.mask, batch["teacher"]["attention_mask"]) and not answer.logits.requires_grad
    sequences = given.splits["train"].sequences.collate([4])
    assert provider(sequences).logits.tolist() == [
        [pytest.approx(score(ROWS["train"]["query"][2], ROWS["train"]["documents"][2][0]))]
    ]


def test_a_fingerprint_is_of_the_scores(tmp_path: Path) -> None:
    one, again = (Scores(path=jsonl(tmp_path)).provider(context(tmp_path)) for _ in range(2))
    other = Scores(path=jsonl(tmp_path, lambda rows: rows[1].update(scores=[9.0]))).provider(context(tmp_path))
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_a_pair_of_no_split_is_no_answer(tmp_path: Path) -> None:
    given = context(tmp_path)
    spec = ModelSpec("scores", 0, 0, 0, HEAD)
    keys = given.splits["train"].teacher.keys
    provider = LookupTeacher(keys, np.arange(len(keys)), np.zeros((10, 1), np.float32), spec)
    with pytest.raises(KeyError, match="scores: a sequence without an answer"):
        provider(given.splits["test"].collate([0]))


def fewer(rows: list[dict[str, Any]]) -> None:
    """One document of the third query of train, and a query of test, are gone."""
    rows[2]["documents"].pop(1), rows[2]["scores"].pop(1)
    del rows[10]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (fewer, r"has no score for 1 of the 10 pairs of train: 'w2 w3' with '.*' \(line 9 of data\.path=a\.jsonl\)\. Add them"),
        (lambda rows: rows.__delitem__(slice(9, 11)), r"no score for 5 of the 10 pairs of test: .*; .*; .*; …\. Add them"),
    ],
)  # fmt: skip
def test_missing_scores_are_refused(
    change: Callable[[list[dict[str, Any]]], object], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=expected):
        Scores(path=jsonl(tmp_path, change)).check(TEXTS)


def test_what_is_no_teacher(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_of_ids(tmp_path)
    with pytest.raises(UserError, match=r"names queries and documents by ids, and teacher\.texts=None is no folder"):
        Scores(path=run.path).check(TEXTS)
    (tmp_path / "ranks.tsv").write_text("q1 d1 1\nq1 d2 2\n")
    with pytest.raises(UserError, match=r"holds 1, 2, 3, … for each query: ranks, not scores"):
        Scores(path=str(tmp_path / "ranks.tsv"), texts=str(tmp_path)).check(TEXTS)
    with pytest.raises(
        UserError, match=r"gives scores of a query and its documents, and this task reads single texts\."
    ):
        Scores(path=jsonl(tmp_path)).check({"train": SequenceTexts(Rows({"text": ["a"]}), Classification().sequences)})
    with pytest.raises(UserError, match=r"teacher=scores gives scores, and the task's head is 2 labels"):
        Scores(path="scores.jsonl").head(Head.of_labels(("a", "b")), [])
    with caplog.at_level(logging.INFO):
        run.check(TEXTS)
    assert "360 of its 362 pairs are in" in caplog.text
