"""An embedder is judged by what it is asked when it is served: anchors and their second texts, with the student's prompts."""

import math

import numpy as np
import pytest

from mangakd.core.spec import Head
from mangakd.data.rows import Rows
from mangakd.models.sentence_transformers import Settings
from mangakd.tasks.embedding.judge import EmbeddingJudge
from mangakd.tasks.embedding.task import Embedding

HEAD = Head("vector", 2)
ANGLES = [0.1, 0.9, 0.5]


def rows(score: list[float], positive: tuple[str, ...] = ("x", "y", "z")) -> Rows:
    anchors = ["a", "b", "a"]
    return Rows(
        {"anchor": anchors, "positive": [*positive], "negatives": [("n",)] * 3, "text": [""] * 3, "score": score}
    )


def test_pairs_with_scores_and_prompts() -> None:
    task = Embedding(most=5.0, prompts={"student": {"query": "q: "}, "teacher": {"document": "d: "}})
    served = task.served(rows([5 * math.cos(angle) for angle in ANGLES]))
    assert served is not None and served.texts == ["q: a", "q: b", "q: a", "x", "y", "z"] and served.name == "spearman"
    vectors = np.array([(1.0, 0.0)] * 3 + [(math.cos(angle), math.sin(angle)) for angle in ANGLES])
    assert served.arrays(vectors)["positive"].tolist() == vectors[3:].tolist()
    assert served.truth["score"] == pytest.approx(np.cos(ANGLES))
    assert served.statistic(HEAD, vectors, vectors).value == pytest.approx(1)
    assert served.statistic(HEAD, vectors[[0, 1, 2, 4, 3, 5]], vectors).value < 0
    assert served.alike(HEAD, vectors, vectors).value == pytest.approx(1)


def test_pairs_without_scores_and_rows_without_a_second_text() -> None:
    task = Embedding(monitor="ndcg@10", judge=EmbeddingJudge("ndcg@10"))
    served = task.served(rows([math.nan] * 3, ("x", " ", "z")))
    assert served is not None and served.texts == ["a", "b", "a", "x", "z"] and served.name == "ndcg@10"
    assert served.truth["anchor_key"].tolist() == [1, 2, 1] and served.truth["positive_key"].tolist() == [1, 0, 3]
    assert served.truth["labels"].tolist() == [1, -100, 1]
    found = served.arrays(np.arange(10.0).reshape(5, 2))["positive"]
    assert found.tolist() == [[6, 7], [0, 0], [8, 9]]


def test_a_second_text_has_the_student_s_prompt_of_documents() -> None:
    task = Embedding(most=5.0, prompts={"student": {"query": "q: ", "document": "d: "}})
    served = task.served(rows([1.0, 2.0, 3.0]))
    assert served is not None and served.texts == ["q: a", "q: b", "q: a", "d: x", "d: y", "d: z"]


def test_texts_alone_have_no_score() -> None:
    assert Embedding().served(rows([math.nan] * 3, ("", "", ""))) is None


def test_the_student_s_folder_has_its_prompts() -> None:
    given = {"student": {"query": "q: "}, "teacher": {"query": "t: "}}
    assert Embedding(prompts=given).folder_settings(32) == Settings({"query": "q: ", "document": ""}, max_length=32)
    assert Embedding().folder_settings(32) == Settings(max_length=32)
