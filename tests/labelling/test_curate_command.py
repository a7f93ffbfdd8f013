"""scripts/curate.py as a process, with the filters as conf/curate.yaml has them; and mistakes in its options."""

import json
from pathlib import Path

import pytest
from conftest import REPO
from hydra import compose, initialize_config_dir
from language_folder import save_language_model
from warm import Command

from mangakd.cli import curate
from mangakd.cli.app import explain, register_resolvers
from mangakd.data.sources import Files
from mangakd.tasks.response.task import Response

ROWS = [
    {
        "prompt": f"Where is book {i}?",
        "answer": f"You find it on shelf {i * 7919} of the {'second ' * (i % 4)}floor.",
        "ended": True,
    }
    for i in range(20)
] + [
    {"prompt": "Where is it?", "answer": "I'm sorry, but I can't help with that.", "ended": True},
    {"prompt": "Wo ist es?", "answer": "Das Buch steht im zweiten Stock neben der Treppe.", "ended": True},
    {"prompt": "Why?", "answer": "Because", "ended": False},
    {"prompt": "How do I reach you?", "answer": "Mail help@example.com or call 03-1234-5678.", "ended": True},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def words(rows: Path, *more: str) -> list[str]:
    return [f"data.path={rows}", f"out={rows.parent / 'out'}", f"paths.cache={rows.parent / 'cache'}", *more]


def run(rows: Path, *more: str) -> None:
    register_resolvers()
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        curate.run(compose("curate", words(rows, *more)))


def test_the_command_writes_what_training_reads(rows: Path, command: Command) -> None:
    done = command("scripts/curate.py", *words(rows))
    assert done.returncode == 0, done.stderr
    assert f"21 of 24 rows stay (17 train, 2 val, 2 test): {rows.parent / 'out'}" in done.stdout
    out = rows.parent / "out"
    left = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert {row["number"]: row["reason"] for row in left} == {21: "refusals", 22: "language", 23: "ended"}
    task = Response()
    paths = {
        key: str(out / f"{name}.jsonl") for key, name in (("path", "train"), ("val_path", "val"), ("test_path", "test"))
    }
    splits = task.prepare(Files(**paths).load(task.columns, task.optional)).splits
    answers = [answer for part in splits.values() for answer in part["answer"]]
    assert len(answers) == 21 and "Mail <EMAIL_1> or call <PHONE_1>." in answers
    manifest = json.loads((out / "curated.json").read_text())
    assert [each["name"] for each in manifest["filters"]] == [
        "ended",
        "empty",
        "unusable",
        "refusals",
        "language",
        "length",
        "overlap",
        "duplicates",
        "near_duplicates",
        "personal_data",
    ]


def test_filters_are_switched_off_and_set(rows: Path) -> None:
    run(
        rows,
        "filters.language.use=false",
        "filters.ended.use=false",
        "filters.refusals.patterns.english=[]",
        "split.train=0.8",
    )
    manifest = json.loads((rows.parent / "out" / "curated.json").read_text())
    assert manifest["off"] == ["ended", "language"] and sum(part["rows"] for part in manifest["parts"].values()) == 24


def test_a_filter_of_ones_own(rows: Path) -> None:
    run(rows, "+filters.short={_target_: mangakd.labelling.curate.filters.length.Length, words: [3, null]}")
    manifest = json.loads((rows.parent / "out" / "curated.json").read_text())
    assert manifest["filters"][-1]["name"] == "short"


def test_a_model_of_this_machine_judges(rows: Path) -> None:
    """A model of random weights: what it says is no score, so all rows are left out, and the message says who did it."""
    save_language_model(rows.parent / "model")
    with pytest.raises(Exception) as error:
        run(rows, "judge.use=true", f"provider.path={rows.parent / 'model'}", "judge.max_new_tokens=2")
    assert "judge left out 21" in (explain(error.value, "curate") or "")
    assert len((rows.parent / "out.judge.jsonl").read_text().splitlines()) == 24


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("out=null", "out is not set"),
        ("data.path=null", "data.path is not set"),
        ("data.path=./nowhere.jsonl", "there is no such file"),
        ("data.columns.prompt=question", "no column 'question'"),
        ("format=xml", "format=xml must be one of"),
        ("split.train=0.9", "the shares must add up to 1"),
        ("reads=poems", "reads=poems must be one of"),
        ("judge.use=true", "provider.path is not set: give the model that judges"),
        ("filters.language.languages=[jp]", "filters.language.languages has 'jp'"),
        ("filters.near_duplicates.threshold=2", "filters.near_duplicates.threshold=2"),
        ("filters.personal_data.action=hide", "filters.personal_data.action=hide"),
        ("filters.overlap.evaluation=[./none.jsonl]", "filters.overlap.evaluation=./none.jsonl"),
        ("filters.length.ratio=[3,1]", "the least is above the most"),
    ],
)
def test_mistakes_are_told(word: str, message: str, rows: Path) -> None:
    with pytest.raises(Exception) as error:
        run(rows, word)
    assert message in (explain(error.value, "curate") or "")
