"""What each form writes is read by the task or teacher that it is for, with that task's own reader."""

import math
from pathlib import Path

import pytest
from prepared import Objects, Prepared, labelled

from mangakd.core.errors import UserError
from mangakd.data.probabilities import read_probabilities
from mangakd.data.scored import read_scores
from mangakd.data.source import Corpus
from mangakd.data.sources import Files
from mangakd.labelling.forms import Answers, Form
from mangakd.labelling.forms.expansions import Expansions
from mangakd.labelling.forms.label_names import LabelNames
from mangakd.labelling.forms.labels import Labels
from mangakd.labelling.forms.paraphrases import Paraphrases
from mangakd.labelling.forms.scores import Scores
from mangakd.labelling.forms.soft_labels import SoftLabels
from mangakd.labelling.provider import Answer
from mangakd.labelling.templates import Template
from mangakd.tasks.base import Task
from mangakd.tasks.classification.task import Classification
from mangakd.tasks.response.task import Response
from mangakd.tasks.rewrite.task import Rewrite

NAMES = ("buy", "return")


def corpus(task: Task, folder: Path) -> Corpus:
    """The task's data, with its own checks; val and test are split off."""
    return task.prepare(Files(path=str(folder / "out.jsonl")).load(task.columns, task.optional))


def every(data: Corpus, column: str) -> list[object]:
    return [value for rows in data.splits.values() for value in rows[column]]


def test_answers_are_rows_of_response(tmp_path: Path) -> None:
    rows: Objects = [{"prompt": f"question {i}"} for i in range(20)]
    labelled(tmp_path, Answers(), rows, Prepared([f"answer {i}" for i in range(20)]))
    data = corpus(Response(), tmp_path)
    assert sorted(map(str, every(data, "answer"))) == sorted(f"answer {i}" for i in range(20))


def test_expansions_are_targets_of_rewrite(tmp_path: Path) -> None:
    rows: Objects = [
        {"history": [f"Who wrote Nana {i}?"], "utterance": f"And book {i}?", "answer": f"a{i}"} for i in range(20)
    ]
    said = [f"1. author of book {i}\n2. who wrote book {i}\n3. book {i} writer" for i in range(20)]
    labelled(tmp_path, Expansions(prompt=Template.of("expansions")), rows, Prepared(said))
    data = corpus(Rewrite(), tmp_path)
    pairs = dict(zip(every(data, "utterance"), every(data, "rewrite"), strict=True))
    assert pairs["And book 7?"] == ("author of book 7", "who wrote book 7", "book 7 writer")
    assert len(pairs) == 20 and "a7" in every(data, "answer")


def test_an_answer_with_too_few_queries_is_unusable(tmp_path: Path) -> None:
    form = Expansions(prompt=Template.of("expansions"), least=2, most=3)
    rows, unusable = labelled(tmp_path, form, [{"input": "a"}, {"input": "b"}], Prepared(["x\ny\nz\nw", "x\nX "]))
    assert rows[0]["rewrite"] == ["x", "y", "z"] and rows[0]["input"] == "a"
    assert [(row["row"], row["reason"], row["detail"]) for row in unusable] == [(2, "fewer than 2 texts", "1")]


def names(letters: bool = True) -> LabelNames:
    return LabelNames(dict.fromkeys(NAMES, ""), letters)


def test_labels_are_rows_of_intent(tmp_path: Path) -> None:
    rows: Objects = [{"text": f"text {i}", "label": "of somebody else"} for i in range(20)]
    form = Labels(labels=names(), prompt=Template.of("labels"))
    provider = Prepared(["AB"[i % 2] for i in range(20)])
    labelled(tmp_path, form, rows, provider)
    data = corpus(Classification(), tmp_path)
    assert data.labels == NAMES and provider.requests[0].choices == ("A", "B")
    pairs = dict(zip(every(data, "text"), every(data, "label"), strict=True))
    assert pairs["text 3"] == ("return",) and pairs["text 4"] == ("buy",) and len(pairs) == 20


def soft(p: float, missing: float = 0.0) -> Answer:
    mass = 1 - missing
    return Answer("A", "cut", 1, logprobs=({"A": math.log(p * mass), " B": math.log((1 - p) * mass), "The": -9.0},))


def test_soft_labels_are_rows_of_intent_and_read_as_probabilities(tmp_path: Path) -> None:
    rows: Objects = [{"text": f"text {i}"} for i in range(20)]
    form = SoftLabels(labels=names(), prompt=Template.of("labels"))
    written, _ = labelled(tmp_path, form, rows, Prepared([soft((i + 0.5) / 20, 0.1) for i in range(20)]))
    assert written[0]["probabilities"] == pytest.approx({"buy": 0.025, "return": 0.975})
    assert written[0]["missing"] == pytest.approx(0.1) and written[0]["label"] == "return"
    data = corpus(Classification(), tmp_path)
    assert data.labels == NAMES and len(every(data, "text")) == 20
    file = read_probabilities(str(tmp_path / "out.jsonl"), None, "text", "probabilities")
    assert file.names == NAMES
    assert [file.table[file.places[f"text {i}"]].tolist() for i in (0, 19)] == [
        pytest.approx([0.025, 0.975]), pytest.approx([0.975, 0.025]),
    ]  # fmt: skip


def test_soft_labels_that_are_none_are_unusable(tmp_path: Path) -> None:
    said = [
        soft(0.5, 0.6), Answer("A", "ended", 1), Answer("x", "ended", 1, logprobs=({"x": -0.1},)),
        Answer("A", "ended", 9, thought="so", logprobs=({"A": -0.1},)), soft(0.5, 0.4),
    ]  # fmt: skip
    form = SoftLabels(labels=names(), prompt=Template.of("labels"))
    rows, unusable = labelled(tmp_path, form, [{"text": str(i)} for i in range(5)], Prepared(said))
    assert [row["text"] for row in rows] == ["4"]
    few = "labels have less than labels.least_mass=0.5"
    assert [row["reason"] for row in unusable] == [few, "no log-probabilities", few, "a thought before the label"]
    assert unusable[0]["detail"] == "missing 0.6000"


PAIRS: Objects = [
    {"query": "nana", "documents": ["Nana 1", "Mars 1", "Nana  1"]}, {"query": "mars", "documents": ["Mars 1"]},
]  # fmt: skip


def test_scores_are_read_by_their_teacher(tmp_path: Path) -> None:
    """A pair is asked once: the third document is the first one but for blanks."""
    provider = Prepared(["3", "0", "two"])
    rows, unusable = labelled(tmp_path, Scores(prompt=Template.of("scores")), PAIRS, provider)
    assert len(provider.requests) == 3 and [row["document"] for row in rows] == [1, 2]
    assert [(row["row"], row["document"], row["reason"]) for row in unusable] == [(2, 1, "no number")]
    file = read_scores(str(tmp_path / "out.jsonl"), "teacher.path")
    assert not file.ids and file.of == {("nana", "Nana 1"): 3.0, ("nana", "Mars 1"): 0.0}


def test_the_expected_score_by_hand(tmp_path: Path) -> None:
    """(0.1 · 0 + 0.2 · 1 + 0.5 · 2) / 0.8 = 1.5."""
    logprobs = ({"0": math.log(0.1), "1": math.log(0.2), "2": math.log(0.5), "I": math.log(0.2)},)
    said = [
        Answer("2", "cut", 1, logprobs=logprobs),
        Answer("2", "ended", 1),
        Answer("3", "ended", 1, logprobs=({"3": 0.0},)),
    ]
    form = Scores(prompt=Template.of("scores"), expected=True)
    provider = Prepared(said)
    rows, unusable = labelled(tmp_path, form, PAIRS, provider)
    assert provider.requests[0].choices == ("0", "1", "2", "3")
    assert rows[0]["scores"] == [pytest.approx(1.5)] and rows[0]["missing"] == pytest.approx(0.2)
    assert rows[1]["scores"] == [3.0] and [row["reason"] for row in unusable] == ["no log-probabilities of the scale"]


def test_the_expected_score_of_a_scale_from_1_and_none_after_a_thought(tmp_path: Path) -> None:
    """0.25 · 1 + 0.75 · 3 = 2.5."""
    logprobs = ({"1": math.log(0.25), "3": math.log(0.75)},)
    said = [Answer("3", "ended", 1, logprobs=logprobs), Answer("3", "ended", 9, thought="3", logprobs=logprobs), "3"]
    form = Scores(prompt=Template.of("scores"), least=1, most=3, expected=True)
    rows, unusable = labelled(tmp_path, form, PAIRS, Prepared(said))
    assert [row["scores"] for row in rows] == [[pytest.approx(2.5)]]
    reasons = ["a thought before the score", "no log-probabilities of the scale"]
    assert [row["reason"] for row in unusable] == reasons


@pytest.mark.parametrize(
    ("form", "rows", "words"),
    [
        (Scores(prompt=Template.of("scores")), [{"query": "a"}], "no document"),
        (Scores(prompt=Template.of("scores")), [{"query": " ", "documents": ["d"]}], "line 1 .* has no query"),
        (
            Scores(prompt=Template.of("scores")),
            [{"query": "a", "documents": ["d", ""]}],
            "line 1 .* no text in document 2",
        ),
        (Labels(labels=names(), prompt=Template.of("labels")), [{"text": "a"}, {"text": ""}], "line 2 .* has no text"),
        (Paraphrases(prompt=Template.of("paraphrases")), [{"text": " "}], "line 1 .* has no text"),
        (
            Expansions(prompt=Template.of("expansions")),
            [{"utterance": "a", "input": "b"}],
            "line 1 .* both an utterance",
        ),
    ],
)
def test_rows_that_ask_nothing_are_refused(form: Form, rows: Objects, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        labelled(tmp_path, form, rows, Prepared([]))


def test_paraphrases_are_rows_of_intent_beside_their_source(tmp_path: Path) -> None:
    rows: Objects = [
        {"text": f"where is order number {i}", "label": NAMES[i % 2]} for i in range(20)
    ]  # fmt: skip
    said = [f"where has order number {i} gone\ncan you track order {i}" for i in range(20)]
    written, unusable = labelled(tmp_path, Paraphrases(prompt=Template.of("paraphrases"), best=1), rows, Prepared(said))
    assert len(written) == 20 and not unusable and all(0.3 <= row["score"] <= 1 for row in written)
    data = corpus(Classification(), tmp_path)
    pairs = dict(zip(every(data, "text"), every(data, "label"), strict=True))
    assert all(pairs[row["text"]] == (rows[row["row"] - 1]["label"],) for row in written) and len(pairs) == 20
