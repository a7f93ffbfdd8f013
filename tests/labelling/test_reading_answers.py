"""Schemas, thoughts, and answers that are unusable: counted by reason, kept in a file, and the same after a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
from prepared import Prepared, labelled, lines

from mangakd.core.errors import UserError
from mangakd.labelling.forms import Answers, Unusable
from mangakd.labelling.forms.label_names import LabelNames
from mangakd.labelling.forms.labels import Labels
from mangakd.labelling.forms.paraphrases import Paraphrases
from mangakd.labelling.provider import Answer
from mangakd.labelling.reading import Reading
from mangakd.labelling.schemas import Schema
from mangakd.labelling.templates import Template
from mangakd.labelling.thoughts import apart
from mangakd.models.generation import Sampling

BOOK = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "volume": {"type": "integer"}},
    "required": ["title"],
}
PROMPTS = [{"prompt": f"p{i}"} for i in range(6)]
LABELS = Labels(labels=LabelNames({"buy": "", "ask": ""}), prompt=Template.of("labels"))


def schema(folder: Path, content: Any = BOOK) -> Schema:
    file = folder / "schema.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return Schema.read(str(file))


def test_answers_follow_the_schema_or_say_why_not(tmp_path: Path) -> None:
    good, fenced = '{"title": "Nana", "volume": 2}', '```json\n{"title": "Mars"}\n```'
    said = [good, fenced, "Nana", '{"volume": 2}', '{"title": "a", "volume": "two"}', '{"title": "a", "title": "b"}']
    provider = Prepared(said)
    rows, unusable = labelled(tmp_path, Answers(), PROMPTS, provider, schema=schema(tmp_path))
    assert [row["answer"] for row in rows] == [good, '{"title": "Mars"}']
    assert provider.requests[0].schema == BOOK
    assert [(row["row"], row["reason"]) for row in unusable] == [
        (3, "no JSON"), (4, "not as the schema says"), (5, "not as the schema says"), (6, "no JSON"),
    ]  # fmt: skip
    assert unusable[1]["detail"] == "$: 'title' is a required property" and "$.volume" in unusable[2]["detail"]
    assert unusable[0]["text"] == "Nana" and rows[0]["written_by"]["schema"] == schema(tmp_path).sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ([1], "holds a list; a schema is an object"),
        ({"type": "text"}, r"is no JSON schema: .* at \$\.type"),
    ],
)
def test_files_that_are_no_schema_are_refused(content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        schema(tmp_path, content)


def test_a_schema_never_fetches_another_one(tmp_path: Path) -> None:
    far = schema(tmp_path, {"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(Exception, match="127"):
        far.text("{}")


@pytest.mark.parametrize(
    ("text", "thought", "rest"),
    [
        ("<think>\nso\n</think>\n\nyes", "so", "yes"), ("so it is</think> yes", "so it is", "yes"), ("yes", "", "yes"),
        ("<think>without an end", "without an end", ""), (" <think></think>yes <think>", "", "yes <think>"),
    ],
)  # fmt: skip
def test_a_thought_is_apart(text: str, thought: str, rest: str) -> None:
    answer = apart(Answer(text, "ended", 1))
    assert (answer.thought, answer.text) == (thought, rest)


def test_a_thought_is_stripped_kept_or_a_column(tmp_path: Path) -> None:
    said = [
        Answer("<think>\nso\n</think>\n\nyes", "ended", 9),
        Answer("no", "ended", 9, thought="apart"),
        Answer("plain", "ended", 9),
    ]
    rows = {}
    for way in ("strip", "keep", "column"):
        (tmp_path / way).mkdir()
        rows[way], _ = labelled(tmp_path / way, Answers(), PROMPTS[:3], Prepared(said), thought=way)
    assert [row["answer"] for row in rows["strip"]] == ["yes", "no", "plain"] and "thought" not in rows["strip"][0]
    assert [row["answer"] for row in rows["keep"]] == [
        "<think>\nso\n</think>\n\nyes", "<think>\napart\n</think>\n\nno", "plain",
    ]  # fmt: skip
    assert [(row["thought"], row["answer"]) for row in rows["column"]] == [
        ("so", "yes"),
        ("apart", "no"),
        ("", "plain"),
    ]


@pytest.mark.parametrize("options", [{"thought": "keep"}, {"thought": "hide"}, {"cut": "x"}])
def test_ways_that_a_form_cannot_read_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"must be one of|thought=column"):
        Reading(LABELS, **options)


def test_a_thought_that_never_ends_is_no_answer() -> None:
    with pytest.raises(Unusable, match="empty"):
        Reading(Answers()).rows(None, 0, Answer("<think>and so on", "ended", 9))  # type: ignore[arg-type]


TEXTS = [{"text": f"t{i}"} for i in range(6)]
SAID = ["buy", "both", Answer("", "refused", 0), "Ask.", Answer("", "failed", 0), "none"]


def test_unusable_answers_are_counted_with_their_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows, unusable = labelled(tmp_path, LABELS, TEXTS, Prepared(SAID))
    assert [(row["text"], row["label"]) for row in rows] == [("t0", "buy"), ("t3", "ask")]
    assert [(row["row"], row["reason"], row["text"]) for row in unusable] == [
        (2, "no label", "both"), (3, "refused", ""), (5, "failed", ""), (6, "no label", "none"),
    ]  # fmt: skip
    assert any(line.startswith("no label: 2 (row 2: 'both'; row 6: 'none')") for line in caplog.messages)
    assert any(line.startswith("answers that the provider refused: 1 (row 3)") for line in caplog.messages)


@pytest.mark.parametrize("stop", range(6))
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_killed_command_ends_with_the_same_files(stop: int, batch: int, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    wanted = labelled(whole, LABELS, TEXTS, Prepared(SAID))
    with pytest.raises(KeyboardInterrupt):
        labelled(killed, LABELS, TEXTS, Prepared(SAID, batch, stop))
    with (killed / "out.jsonl.unusable.jsonl").open("a") as stream:
        stream.write('{"row": 2, "rea')  # as a kill within a write leaves it
    assert labelled(killed, LABELS, TEXTS, Prepared(SAID, batch)) == wanted


REWORDED = ["where has my order gone\nwhere's the order of mine", "no", "is this one in stock now\nis it in your stock"]
SOURCES = [
    {"text": "where is my order", "label": "status"},
    {"text": "hello there", "label": "hi"},
    {"text": "is it in stock", "label": "stock"},
]
FORM = Paraphrases(prompt=Template.of("paraphrases"))


@pytest.mark.parametrize("rows", range(5))
@pytest.mark.parametrize("half", ["", '{"text": "half a'])
def test_an_answer_of_several_rows_is_whole_or_asked_again(rows: int, half: str, tmp_path: Path) -> None:
    """A kill may leave the first of two rows of an answer; the answer is then asked again."""
    wanted, unusable = labelled(tmp_path, FORM, SOURCES, Prepared(REWORDED))
    assert [(row["row"], row["label"], row["part"]) for row in wanted] == [
        (1, "status", [1, 2]), (1, "status", [2, 2]), (3, "stock", [1, 2]), (3, "stock", [2, 2]),
    ]  # fmt: skip
    assert [row["row"] for row in unusable] == [2]
    out = tmp_path / "out.jsonl"
    content = out.read_text().splitlines(keepends=True)
    out.write_text("".join(content[:rows]) + half)
    provider = Prepared(REWORDED, batch=1)
    assert labelled(tmp_path, FORM, SOURCES, provider) == (wanted, unusable)
    assert len(provider.requests) == {0: 3, 1: 3, 2: 2, 3: 2, 4: 0}[rows]


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [0, 2], [1], [0, 1, 3, 2]])
def test_rows_of_an_answer_in_another_order_are_refused(order: list[int], tmp_path: Path) -> None:
    labelled(tmp_path, FORM, SOURCES, Prepared(REWORDED))
    out = tmp_path / "out.jsonl"
    content = out.read_text().splitlines(keepends=True)
    out.write_text("".join(content[i] for i in order))
    with pytest.raises(UserError, match="is not in the order of the prompts"):
        labelled(tmp_path, FORM, SOURCES, Prepared(REWORDED))


def test_samples_are_refused_where_each_is_the_same(tmp_path: Path) -> None:
    from mangakd.labelling.forms.scores import Scores

    rows = [{"query": "q", "documents": ["d"]}]
    with pytest.raises(UserError, match=r"samples=2: Scores of a row .* Set samples=1"):
        labelled(tmp_path, Scores(prompt=Template.of("scores")), rows, Prepared([]), samples=2, sampling=Sampling(1.0))
    assert lines(tmp_path / "out.jsonl") == []
