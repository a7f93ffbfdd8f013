"""Each task reads what curate writes of its rows, and the rows that it would refuse are left out."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from curated_rows import SPLITS, Objects, answers, lines, loaded, manifest, no_bar, options, run, write

from mangakd.core.errors import UserError
from mangakd.labelling.curate.filters.empty import Empty
from mangakd.labelling.curate.filters.personal_data import PersonalData
from mangakd.labelling.curate.filters.unusable import Unusable
from mangakd.labelling.curate.source import Reading
from mangakd.labelling.forms import Answers
from mangakd.labelling.label import Options, label, read_prompts
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.models.sampling import Sampling
from mangakd.tasks.classification.task import Classification
from mangakd.tasks.embedding.task import Embedding
from mangakd.tasks.rerank.task import Rerank
from mangakd.tasks.response.task import Response
from mangakd.tasks.rewrite.task import Rewrite


def test_the_response_task_reads_what_is_left(tmp_path: Path) -> None:
    rows = answers()
    out = run(write(tmp_path / "answers.jsonl", rows))
    left = {each["number"]: (each["reason"], each["detail"]) for each in lines(out / "left_out.jsonl")}
    assert left == {
        5: ("ended", "ended is false"),
        6: ("empty", "the answer has no word"),
        7: ("empty", "the answer has no word"),
        9: ("duplicates", "equal to row 8"),
        10: ("length", "269 characters, the most is 200"),
    }
    parts = {name: lines(out / f"{name}.jsonl") for name in SPLITS}
    assert {name: len(part) for name, part in parts.items()} == {"train": 15, "val": 5, "test": 5}
    rest = [row for part in parts.values() for row in part]
    expected = [row for i, row in enumerate(rows, 1) if i not in left]
    expected[3]["answer"] = (
        expected[3]["answer"].replace("taro@example.co.jp", "<EMAIL_1>").replace("03-1234-5678", "<PHONE_1>")
    )
    assert sorted(rest, key=lambda row: row["row"]) == expected
    splits = loaded(Response(), out)
    for name, part in parts.items():
        assert splits[SPLITS[name]]["prompt"] == [row["prompt"] for row in part]
        assert splits[SPLITS[name]]["answer"] == [row["answer"] for row in part]


def test_messages(tmp_path: Path) -> None:
    rows: Objects = [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": f"book {i // 2}?"},
                {"role": "assistant", "content": f"which of {i}?"},
                {"role": "user", "content": f"part {i} to me@example.com"},
                {"role": "assistant", "content": f"shelf {i * 7919}, I wrote to me@example.com"},
            ]
        }
        for i in range(40)
    ]
    rows[5]["messages"][-1]["role"] = "nobody"
    out = run(
        write(tmp_path / "chats.jsonl", rows),
        choice=options(filters={"unusable": Unusable(), "personal_data": PersonalData()}),
    )
    left = lines(out / "left_out.jsonl")
    assert [each["number"] for each in left] == [6] and "not a list of messages" in left[0]["detail"]
    splits = loaded(Response(), out)
    firsts = {name: {messages[1][1] for messages in part["messages"]} for name, part in splits.items()}
    assert not (firsts["train"] & firsts["test"] or firsts["train"] & firsts["validation"])
    assert all(
        "<EMAIL_1>" in messages[-1][1] and "<EMAIL_1>" in messages[3][1] for messages in splits["train"]["messages"]
    )


def test_rewrites(tmp_path: Path) -> None:
    rows: Objects = [
        {
            "history": ["who wrote it?", f"author {i // 3}"],
            "utterance": f"and book {i}?",
            "conversation": str(i // 3),
            "rewrite": [f"who wrote book {i}?", f"author of book {i}"],
        }
        for i in range(45)
    ]
    rows[1] |= {"target": "two targets"}
    rows[2] |= {"rewrite": []}
    out = run(
        write(tmp_path / "rewrites.jsonl", rows), choice=options(filters={"empty": Empty(), "unusable": Unusable()})
    )
    reasons = {each["number"]: each["reason"] for each in lines(out / "left_out.jsonl")}
    assert reasons == {2: "unusable", 3: "empty"}
    splits = loaded(Rewrite(), out)
    sides = {name: set(part["conversation"]) for name, part in splits.items()}
    assert sum(len(part) for part in splits.values()) == 43 and not sides["train"] & sides["test"]
    assert all(len(texts) == 2 for texts in splits["train"]["rewrite"])


def test_intents_keep_every_label_in_train(tmp_path: Path) -> None:
    rows: Objects = [{"text": f"where is order {i}", "label": ("order", "refund")[i % 2]} for i in range(30)]
    rows += [{"text": "a rare one", "label": "rare"}, {"text": "a text without a label"}]
    out = run(write(tmp_path / "intents.jsonl", rows), choice=options(filters={"unusable": Unusable()}))
    assert [each["number"] for each in lines(out / "left_out.jsonl")] == [32]
    splits = loaded(Classification(), out)
    assert {labels[0] for labels in splits["train"]["label"]} == {"order", "refund", "rare"}
    assert sum(len(part) for part in splits.values()) == 31


def test_groups_of_documents(tmp_path: Path) -> None:
    rows: Objects = [
        {"query": f"book {i}?", "documents": [f"shelf {i}", "the sea"], "grades": [2, 0]} for i in range(20)
    ]
    rows[4]["grades"] = [1]
    out = run(
        write(tmp_path / "groups.jsonl", rows), choice=options(filters={"empty": Empty(), "unusable": Unusable()})
    )
    left = lines(out / "left_out.jsonl")
    assert [each["number"] for each in left] == [5] and "has 2 documents and 1 grades" in left[0]["detail"]
    assert sum(len(part) for part in loaded(Rerank(), out).values()) == 19


def test_pairs(tmp_path: Path) -> None:
    rows: Objects = [{"anchor": f"book {i}?", "positive": f"shelf {i}", "score": i / 40} for i in range(40)]
    out = run(write(tmp_path / "pairs.jsonl", rows), choice=options(filters={"unusable": Unusable()}))
    assert sum(len(part) for part in loaded(Embedding(), out).values()) == 40


def test_csv_in_and_parquet_out(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(
        "question,label\n" + "".join(f"order {i} of a@example.com,{'one|two' if i % 2 else 'one'}\n" for i in range(30))
    )
    reading = Reading(names={"text": "question"}, several=True)
    out = run(
        file,
        choice=options(reading, format="parquet", filters={"unusable": Unusable(), "personal_data": PersonalData()}),
    )
    splits = loaded(Classification(problem="multi_label"), out, "parquet", text_column="question")
    assert set(splits["train"]["label"]) == {("one", "two"), ("one",)}
    assert splits["train"]["text"][0].endswith("of <EMAIL_1>")


def test_parquet_of_answers_with_what_wrote_them(tmp_path: Path) -> None:
    rows = [{**row, "written_by": {"model": "m", "seed": 1}} for row in answers() if "answer" in row]
    out = run(write(tmp_path / "answers.jsonl", rows), choice=options(format="parquet"))
    table = pyarrow.parquet.read_table(out / "train.parquet")
    assert json.loads(table.column("written_by")[0].as_py()) == {"model": "m", "seed": 1}
    assert sum(len(part) for part in loaded(Response(), out, "parquet").values()) == 25


def test_texts_that_no_task_tells(tmp_path: Path) -> None:
    rows: Objects = [
        {"title": f"book {i}", "summary": "" if i == 2 else f"a story of {i * 7919} pages"} for i in range(20)
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=r"has the columns title, summary, and no task reads them: .*texts=\[…\]"):
        run(file)
    choice = options(Reading(texts=("summary",)), filters={"empty": Empty(), "unusable": Unusable()})
    out = run(file, choice=choice)
    assert [each["number"] for each in lines(out / "left_out.jsonl")] == [3]
    with pytest.raises(UserError, match=r"has no column 'nothing'"):
        run(file, "other", options(Reading(texts=("nothing",))))


class Shelves(Provider):
    """Says on which shelf a book is; it cuts the third answer, and has nothing to say to the fourth."""

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"provider": "test", "model": "shelves"}

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        for i in range(done, len(requests)):
            text = f"{requests[i].prompt[-1][1]} It is on shelf {i * 7919}."
            advance(1)
            yield [Answer(text, "cut" if i == 2 else "ended", 7) if i != 3 else Answer("", "ended", 0)]


def test_what_label_writes(tmp_path: Path) -> None:
    """label's file with its manifest beside it: the answer that was cut is left out, and the card names the teacher."""
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": f"Where is book {i}?"} for i in range(20)])
    file, form = tmp_path / "answers.jsonl", Answers()
    choice = Options(Sampling(), form=form, cut="keep")
    label(read_prompts(str(prompts), {}, form), Shelves(), choice, file, tmp_path / "cache", no_bar, prompts)
    out = run(file)
    assert [(each["number"], each["reason"]) for each in lines(out / "left_out.jsonl")] == [(3, "ended")]
    assert sum(len(part) for part in loaded(Response(), out).values()) == 18
    assert manifest(out)["label"]["teacher"] == {"provider": "test", "model": "shelves"}
    assert "model `shelves`" in (out / "README.md").read_text()
