"""The folder that curate writes: no prompt is on two sides, equal settings give equal bytes, and the card says what was done."""

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from curated_rows import SPLITS, Objects, answers, filters, lines, manifest, options, run, write

from mangakd.core.errors import UserError
from mangakd.labelling.curate.filters.length import Length
from mangakd.labelling.curate.filters.unusable import Unusable
from mangakd.labelling.curate.source import Reading


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
