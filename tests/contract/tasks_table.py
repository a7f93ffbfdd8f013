"""One row per task class and options: what the contract tests in test_tasks.py are run for. To add a task, add a row."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chat_samples import chat_tokenizer
from rewrite_rows import columns as rewritten
from rewrite_rows import rewrite_tokenizer
from tiny_models import tokenizer

from mangakd.core.spec import Head
from mangakd.data.rows import Rows
from mangakd.evaluation.judge import Arrays
from mangakd.models.late import Late
from mangakd.tasks.base import Task
from mangakd.tasks.classification.task import Classification
from mangakd.tasks.embedding.judge import EmbeddingJudge
from mangakd.tasks.embedding.task import Embedding
from mangakd.tasks.rerank.task import Rerank
from mangakd.tasks.response.task import Response
from mangakd.tasks.rewrite.task import Rewrite

REPO = Path(__file__).parents[2]
PACKAGE = REPO / "tests" / "example_package"
sys.path.insert(0, str(PACKAGE))  # as if pip had installed it

from mangashop_templates.urgency.task import Urgency  # noqa: E402

Change = Callable[[dict[str, list]], None]


@dataclass(frozen=True)
class Row:
    """yaml: the task's file. columns: of N rows that nothing is wrong with, the texts of `inputs` left out.

    refused: what is wrong → (a change of the training columns, what the UserError says). perfect: truth → what a model without a
    mistake answers, (S, outputs), or (P, V) of a head of tokens, whose truth also has the `next` tokens (P). best: its scores
    that are neither 1 nor 0. reader: of all models. most: tokens of a text. labels: whether rows may lack them.
    """

    id: str
    make: Callable[[], Task]
    yaml: Path
    columns: Callable[[int], dict[str, list]]
    refused: Mapping[str, tuple[Change, str]]
    perfect: Callable[[Head, Arrays], np.ndarray]
    inputs: tuple[str, ...] = field(default=("text",))  # the columns of one text
    options: tuple[str, ...] = ()  # overrides of the yaml
    late: Late | None = None  # of its models, which then read the texts of a pair apart
    best: Mapping[str, float] = field(default_factory=dict)
    reader: Callable[[], Any] = tokenizer
    most: int = 20
    labels: bool = True

    @property
    def tokens(self) -> bool:
        return self.make().kind == "tokens"


def changed(column: str, value: object, at: slice = slice(3, 4)) -> Change:
    """Some cells of a column have another value."""

    def change(columns: dict[str, list]) -> None:
        columns[column][at] = [value] * len(columns[column][at])

    return change


def named(count: int) -> dict[str, list]:
    return {"label": [("abc"[i % 3],) for i in range(count)]}


def named_sets(count: int) -> dict[str, list]:
    return {"label": [[(), ("a",), ("a", "b"), ("b", "c")][i % 4] for i in range(count)]}


def without(name: str) -> Change:
    def change(columns: dict[str, list]) -> None:
        columns["label"] = [("b",) if names == (name,) else names for names in columns["label"]]

    return change


GROUPS = [(0.0, 2.0, 1.0), (1.0,), (0.0, 3.0), (1.0, 0.0, 2.0, 0.0)]


def graded(count: int) -> dict[str, list]:
    """Queries of one to four documents."""
    grades = [GROUPS[i % 4] for i in range(count)]
    documents = [
        tuple(f"w{10 * i + j} w{(7 * i + 3 * j) % 90}" for j in range(len(one))) for i, one in enumerate(grades)
    ]
    return {"documents": documents, "grades": grades}


def _alike(grades: list) -> None:
    grades[:] = [(1.0,) * len(one) for one in grades]


def _pairs(count: int, **columns: list) -> dict[str, list]:
    nothing: dict[str, list] = {"negatives": [()] * count, "text": [""] * count, "score": [math.nan] * count}
    texts = {
        "anchor": [f"w{3 * i} w{3 * i + 1}" for i in range(count)],
        "positive": [f"w{3 * i + 2}" for i in range(count)],
    }
    return {**texts, **nothing, **columns}


def positives(count: int) -> dict[str, list]:
    """Anchors and positives, every third row with two negatives."""
    return _pairs(count, negatives=[(f"w{i} w{60 + i}", f"w{80 + i}") if i % 3 == 0 else () for i in range(count)])


def scored_pairs(count: int) -> dict[str, list]:
    return _pairs(count, score=[i * 7 % 10 / 2 for i in range(count)])


def _near(head: Head, truth: Arrays) -> np.ndarray:
    """Each anchor and its second text span a plane of their own: their cosine is the score, or 1."""
    rows = []
    for i, (score, label) in enumerate(zip(truth["score"], truth["labels"], strict=True)):
        wanted, plane = 1.0 if label == 1 else float(score), np.eye(2 * len(truth["score"]))[2 * i : 2 * i + 2]
        rows += [plane[0], wanted * plane[0] + math.sqrt(1 - wanted**2) * plane[1]]
        rows += [plane[1]] * (2 if label == 1 and i % 3 == 0 else 0)  # negatives
    return np.array(rows)


def answered(count: int) -> dict[str, list]:
    """Prompts and answers, conversations of two answers, and texts."""
    kind = [i % 3 for i in range(count)]
    talk = (("user", "where is it?"), ("assistant", "here"), ("user", "and now?"), ("assistant", "gone"))
    return {
        "messages": [talk if k == 1 else () for k in kind],
        "prompt": [f"where is order {i}?" if k == 0 else "" for i, k in enumerate(kind)],
        "answer": [f"it is {'no' if i % 2 else 'on its way'}" if k == 0 else "" for i, k in enumerate(kind)],
        "text": [f"good bye {i} the book is here" if k == 2 else "" for i, k in enumerate(kind)],
        "system": ["be kind" if k == 0 else "" for k in kind],
        "context": [("yes, it is",) if i % 6 == 0 else () for i in range(count)],
    }  # fmt: skip


def one_rewrite(count: int) -> dict[str, list]:
    """Each expansion would be a row of its own."""
    columns = rewritten(count)
    return {**columns, "rewrite": [texts[:1] for texts in columns["rewrite"]]}


ALL = slice(None)
EMBEDDING = REPO / "conf" / "task" / "embedding.yaml"
BOTH = ("anchor", "positive", "text")
INTENT = REPO / "conf" / "task" / "intent.yaml"
ROWS = [
    Row(
        "classification", Classification, INTENT, named,
        {
            "several labels": (changed("label", ("a", "b")), r"row 4 has several labels \(a, b\).*task.problem=multi_label"),
            "one class": (changed("label", ("a",), ALL), "has the label 'b', which no row of train has"),
            "a held-out label": (without("c"), "has the label 'c', which no row of train has"),
        },
        lambda head, truth: 60.0 * np.eye(head.outputs)[truth["labels"]],
    ),
    Row(
        "classification, several labels", lambda: Classification(problem="multi_label"), INTENT, named_sets,
        {"a held-out label": (changed("label", ("a",), ALL), "has the label 'b', which no row of train has")},
        lambda head, truth: 60.0 * (2 * truth["labels"] - 1),
    ),
    Row(
        "urgency", Urgency, PACKAGE / "mangashop_templates" / "conf" / "task" / "urgency.yaml",
        lambda count: {"score": [i * 7 % 10 / 10 for i in range(count)]},
        {
            "outside": (changed("score", 1.5), r"row 4 has the score 1\.5, outside 0 … task\.most=1\."),
            "all the same": (changed("score", 0.5, ALL), r"all rows of train have the score 0\.5"),
        },
        lambda head, truth: truth["score"][:, None],
    ),
    Row(
        "rerank", Rerank, REPO / "conf" / "task" / "rerank.yaml", graded,
        {
            "a grade too many": (changed("grades", (1.0, 0.0)), r"row 4 has 4 documents and 2 grades.*data\.columns\.grades"),
            "below 0": (changed("grades", (1.0, 0.0, -1.0, 0.0)), r"row 4 has the grade -1"),
            "twice": (changed("documents", ("a", "b", "a", "c")), r"row 4 has one document under the grades 1 and 2: 'a'"),
            "no order": (lambda columns: _alike(columns["grades"]), "no query of train has documents of different grades"),
        },
        lambda head, truth: 60.0 * truth["grades"][np.isfinite(truth["grades"])][:, None],
        inputs=("query",),
    ),
    Row(
        "rerank, late interaction", Rerank, REPO / "conf" / "task" / "rerank.yaml", graded,
        {"below 0": (changed("grades", (1.0, 0.0, -1.0, 0.0)), r"row 4 has the grade -1")},
        lambda head, truth: 60.0 * truth["grades"][np.isfinite(truth["grades"])][:, None],
        inputs=("query",), late=Late(dims=6, query_prefix="w0", document_prefix="w1", skip=("w2",)),
    ),
    Row(
        "embedding, positives", lambda: Embedding(monitor="ndcg@10", judge=EmbeddingJudge("ndcg@10")), EMBEDDING, positives,
        {
            "no text": (changed("anchor", ""), r"row 4 has no anchor and no text.*data\.columns\.anchor"),
            "two texts": (changed("text", "w1"), r"row 4 has both an anchor and a text"),
            "negatives alone": (changed("positive", ""), r"row 4 has no positive beside its negatives or score"),
            "some scores": (changed("score", 0.5), r"row 1 has a second text and no score, and row 4 has a score"),
        },
        _near, inputs=BOTH, options=("task.monitor=ndcg@10",),
    ),
    Row(
        "embedding, scores", lambda: Embedding(most=5.0), EMBEDDING, scored_pairs,
        {
            "outside": (changed("score", 5.5), r"row 4 has the score 5\.5, outside 0 … task\.most=5\."),
            "score alone": (changed("positive", ""), r"row 4 has no positive beside its negatives or score"),
        },
        _near, inputs=BOTH,
    ),
    Row(
        "response", Response, REPO / "conf" / "task" / "response.yaml", answered,
        {
            "two kinds": (changed("text", "a text"), r"row 4 holds prompt and text\. A row holds one of"),
            "no answer": (changed("answer", " "), r"row 4 has a prompt and no answer"),
            "nothing": (changed("prompt", ""), r"row 4 holds neither messages nor a prompt nor a text"),
        },
        lambda head, truth: 60.0 * np.eye(420)[truth["next"]],
        inputs=("prompt", "text", "system"), best={"perplexity": 1.0}, reader=lambda: chat_tokenizer("marked"), most=128,
        labels=False,
    ),
    Row(
        "rewrite", Rewrite, REPO / "conf" / "task" / "rewrite.yaml", one_rewrite,
        {
            "two texts": (changed("input", "a text"), r"row 4 holds both an utterance and an input"),
            "nothing": (changed("utterance", " "), r"row 4 holds neither an utterance nor an input"),
            "two targets": (changed("target", ("one",)), r"row 4 has both a rewrite and a target"),
            "no target": (changed("rewrite", (), ALL), r"no row of train .* has a rewrite or a target"),
        },
        lambda head, truth: 60.0 * np.eye(420)[truth["next"]],
        inputs=("utterance", "input"), best={"perplexity": 1.0}, reader=rewrite_tokenizer, most=128, labels=False,
    ),
]  # fmt: skip


def rows(row: Row, count: int, texts: list[str], change: Change | None = None) -> Rows:
    columns = row.columns(count)
    if change is not None:
        change(columns)
    return Rows({**dict.fromkeys(row.inputs, texts), **columns})
