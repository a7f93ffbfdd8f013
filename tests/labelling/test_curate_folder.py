"""The folder that curate writes: tasks read it, no prompt is on two sides, equal settings give equal bytes."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mangakd.core.errors import UserError
from mangakd.data.sources import Files
from mangakd.labelling.curate.curate import Options, curate
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.filters.duplicates import Duplicates
from mangakd.labelling.curate.filters.empty import Empty
from mangakd.labelling.curate.filters.ended import Ended
from mangakd.labelling.curate.filters.length import Length
from mangakd.labelling.curate.filters.near_duplicates import NearDuplicates
from mangakd.labelling.curate.filters.overlap import Overlap
from mangakd.labelling.curate.filters.personal_data import PersonalData
from mangakd.labelling.curate.filters.unusable import Unusable
from mangakd.labelling.curate.source import Reading
from mangakd.tasks.base import Task
from mangakd.tasks.classification.task import Classification
from mangakd.tasks.embedding.task import Embedding
from mangakd.tasks.rerank.task import Rerank
from mangakd.tasks.response.task import Response
from mangakd.tasks.rewrite.task import Rewrite

Objects = list[dict[str, Any]]
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


@contextlib.contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    rows = 0

    def advance(count: int) -> None:
        nonlocal rows
        rows += count

    yield advance
    assert rows == total, "the bar ends at its end"


def filters() -> dict[str, Filter]:
    return {
        "ended": Ended(),
        "empty": Empty(),
        "unusable": Unusable(),
        "length": Length(characters=[None, 200]),
        "overlap": Overlap(),
        "duplicates": Duplicates(),
        "near_duplicates": NearDuplicates(keep=True),
        "personal_data": PersonalData(),
    }


def options(reading: Reading | None = None, **more: Any) -> Options:
    return Options(
        **{"reading": reading or Reading(), "filters": filters(), "off": ["language"], "shares": SHARES, **more}
    )


def write(file: Path, rows: Objects) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


def run(file: Path, name: str = "out", choice: Options | None = None) -> Path:
    out = file.parent / name
    curate(str(file), out, choice or options(), file.parent / "cache", no_bar)
    return out


def lines(file: Path) -> Objects:
    return [json.loads(line) for line in file.read_text().splitlines()]


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "curated.json").read_text())  # type: ignore[no-any-return]


def answers(count: int = 30) -> Objects:
    rows: Objects = [
        {
            "prompt": f"where is book {i}?",
            "answer": f"Shelf {i * 7919} holds it, and {'very ' * (i % 9)}soon more.",
            "row": i,
            "ended": True,
        }
        for i in range(count)
    ]
    rows[3]["answer"] += " Mail to taro@example.co.jp or call 03-1234-5678."
    rows[4]["ended"] = False
    rows[5]["answer"] = "…"
    del rows[6]["answer"]
    rows[7] |= {"prompt": rows[8]["prompt"].upper(), "answer": rows[8]["answer"] + "!"}
    rows[9]["answer"] = "long " * 50 + " hanako@example.com"
    return rows


def loaded(task: Task, out: Path, ending: str = "jsonl", **more: Any) -> dict[str, Any]:
    """What the task's own reader makes of the files."""
    paths = dict(
        zip(("path", "val_path", "test_path"), (str(out / f"{name}.{ending}") for name in SPLITS), strict=True)
    )
    return dict(task.prepare(Files(**paths, **more).load(task.columns, task.optional)).splits)


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


def test_no_report_holds_a_value(tmp_path: Path) -> None:
    """Row 10 is left out: its address stands in no file either."""
    out = run(write(tmp_path / "answers.jsonl", answers()))
    for file in out.iterdir():
        content = file.read_bytes()
        assert not any(value in content for value in (b"taro@", b"hanako@", b"1234-5678", str(tmp_path).encode())), file
    assert "<EMAIL_1>" in (out / "left_out.jsonl").read_text()
    assert manifest(out)["personal_data"] == {
        "action": "replace",
        "kinds": {"EMAIL": {"values": 1, "rows": 1}, "PHONE": {"values": 1, "rows": 1}},
    }


def test_equal_settings_give_equal_bytes(tmp_path: Path) -> None:
    file = write(tmp_path / "answers.jsonl", answers())
    one, other = run(file, "one"), run(file, "other")
    names = sorted(each.name for each in one.iterdir())
    assert names == sorted(
        ["README.md", "curated.json", "left_out.jsonl", "near_duplicates.npz", "test.jsonl", "train.jsonl", "val.jsonl"]
    )
    for name in names:
        if name != "curated.json":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = manifest(one), manifest(other)
    assert first.pop("made")["date"] and second.pop("made") and first == second
    third = manifest(run(file, "third", options(seed=1)))
    assert third["files"]["train.jsonl"] != first["files"]["train.jsonl"], "another seed splits otherwise"


def test_the_manifest_says_what_made_each_file(tmp_path: Path) -> None:
    file = write(tmp_path / "answers.jsonl", answers())
    out = run(file)
    content = manifest(out)
    assert content["data"] == {
        "file": "answers.jsonl",
        "sha256": sha256(file.read_bytes()).hexdigest(),
        "rows": 30,
        "unit": "line",
    }
    assert content["label"] is None and content["off"] == ["language"]
    assert sum(each["rows"] for each in content["filters"]) == 5
    for name, digest in content["files"].items():
        assert digest == sha256((out / name).read_bytes()).hexdigest(), name
    assert {*content["files"], "curated.json"} == {each.name for each in out.iterdir()}
    assert content["settings"]["filters"]["near_duplicates"]["threshold"] == 0.8


def test_a_folder_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "answers.jsonl", answers())
    out = run(file)
    before = (out / "curated.json").read_bytes()
    run(file)
    assert "the same rows and settings made it" in capsys.readouterr().out
    assert (out / "curated.json").read_bytes() == before
    other = options(filters={**filters(), "length": Length(characters=[None, 300])})
    with pytest.raises(
        UserError,
        match=r"was made with filters.length.characters='\[None, 200\]', and this command has '\[None, 300\]'",
    ):
        run(file, choice=other)
    write(file, answers()[:-1])
    with pytest.raises(UserError, match="was made of other rows"):
        run(file)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds files and no curated\.json"):
        run(file, "notes")
    with pytest.raises(UserError, match="is a file"):
        run(file, "answers.jsonl")


def test_half_a_folder_of_a_killed_command_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "train.jsonl").write_text("half")
    out = run(write(tmp_path / "answers.jsonl", answers()))
    assert len(lines(out / "train.jsonl")) == 15 and not (tmp_path / "out.partial").exists()


def test_no_prompt_and_no_conversation_is_on_two_sides(tmp_path: Path) -> None:
    """Rows 2i and 2i + 1 ask the same, and a conversation joins two such questions: groups of four rows."""
    rows: Objects = [
        {
            "prompt": f"question  {i // 2}",
            "answer": f"answer {i * 7919} of its own {i}",
            "conversation": f"c{(i + 1) // 2 // 2}" if i % 2 else None,
        }
        for i in range(80)
    ]
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    out = run(write(tmp_path / "answers.jsonl", rows), choice=options(filters={"unusable": Unusable()}))
    sides = {name: lines(out / f"{name}.jsonl") for name in SPLITS}
    assert sum(map(len, sides.values())) == 80 and all(sides.values())
    for key in ("prompt", "conversation"):
        values = [{row[key] for row in side if key in row} for side in sides.values()]
        assert not (values[0] & values[1] or values[0] & values[2] or values[1] & values[2])
    content = manifest(out)["parts"]
    assert sum(part["groups"] for part in content.values()) < 40, "rows that only a conversation joins are one group"


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
    import pyarrow.parquet

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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"shares": {"train": 0.5, "val": 0.1, "test": 0.1}}, "the shares must add up to 1"),
        ({"shares": {"train": 1.5, "val": -0.5, "test": 0}}, "split.train=1.5 must be a number from 0 to 1"),
        ({"format": "csv"}, "format=csv must be one of jsonl, parquet"),
        ({"reading": Reading(task="intents")}, "reads=intents must be one of .* did you mean intent"),
        ({"reading": Reading(task="rewrite")}, "no task reads them: utterance and rewrite"),
        ({"reading": Reading(names={"prompts": "prompt"})}, "data.columns.prompts is no column of response"),
        ({"filters": {"length": Length(characters=[1000, None])}}, "is left: length left out 30. Set a filter off"),
    ],
)
def test_mistakes(more: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "answers.jsonl", answers())
    with pytest.raises(UserError, match=message):
        run(file, choice=options(**more))
    assert not (tmp_path / "out").exists()


def test_too_few_rows_for_a_split(tmp_path: Path) -> None:
    file = write(tmp_path / "answers.jsonl", answers(12)[10:])
    with pytest.raises(
        UserError, match=r"2 rows of 2 different prompts or conversations are too few for split.test=0.2"
    ):
        run(file)
    out = run(file, choice=options(shares={"train": 1.0, "val": 0, "test": 0}))
    assert sorted(manifest(out)["parts"]) == ["train"] and not (out / "val.jsonl").exists()


LABEL = {
    "data": {"path": "prompts.jsonl", "sha256": "ab" * 32, "rows": 30},
    "template": {"path": "t.jinja", "sha256": "cd" * 32},
    "form": {},
    "teacher": {"provider": "openai", "model": "gpt-x"},
    "sampling": {"temperature": 0.7},
    "seed": 3,
    "samples": 1,
    "ledger": {
        "path": "l.sqlite",
        "requests": 31,
        "answers": 30,
        "refused": 1,
        "failed": 0,
        "tokens_in": 500,
        "tokens_out": 900,
        "cost": 1.25,
        "currency": "USD",
        "first": "2026-01-01",
        "last": "2026-01-02",
    },
    "versions": {},
    "date": "2026-01-02T10:00:00+00:00",
}


def test_the_card_names_the_teacher_and_what_it_cost(tmp_path: Path) -> None:
    file = write(tmp_path / "answers.jsonl", answers())
    about = {**LABEL, "out": {"sha256": sha256(file.read_bytes()).hexdigest(), "rows": 30}}
    (tmp_path / "answers.jsonl.label.json").write_text(json.dumps(about))
    out = run(file)
    card = (out / "README.md").read_text()
    for words in (
        "provider `openai`, model `gpt-x`",
        "2026-01-02T10:00:00",
        "ab" * 32,
        "cd" * 32,
        "cost `1.25`, currency `USD`",
        "requests `31`",
    ):
        assert words in card, words
    assert "l.sqlite" not in card and manifest(out)["label"] == about
    assert "| duplicates | 1 | 3.3% | 9: equal to row 8" in card
    assert card.startswith(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train.jsonl\n"
    )


def test_a_label_manifest_of_other_bytes_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "answers.jsonl", answers())
    (tmp_path / "answers.jsonl.label.json").write_text(json.dumps({**LABEL, "out": {"sha256": "00", "rows": 30}}))
    with caplog.at_level(logging.WARNING):
        out = run(file)
    assert "is about other bytes" in caplog.text and manifest(out)["label"] is None
    assert "Teacher: not known" in (out / "README.md").read_text()
