"""`mangakd audit` on answers that an API wrote, through a real HTTP server: back to prompts, template, teacher and ledger."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO
from test_audit import Seen, change, seen

from mangakd.labelling.api.openai_wire import OpenAIWire
from mangakd.labelling.api.provider import Api
from mangakd.labelling.curate.curate import Options as Curating
from mangakd.labelling.curate.curate import curate
from mangakd.labelling.curate.source import Reading
from mangakd.labelling.forms.answers import Answers
from mangakd.labelling.label import Options, label, read_prompts
from mangakd.labelling.templates import Template
from mangakd.models.sampling import Sampling
from mangakd.training.callbacks.progress import progress

__all__ = ["seen"]
ROWS = 12
pytest.importorskip("openai")


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, str(REPO / "tests" / "labelling" / "injecting_server.py"), '{"seed": 1}'],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout
    yield server.stdout.readline().strip()
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def world(port: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """prompts.jsonl, question.jinja, answers.jsonl with its ledger, and curated/, made once."""
    root = tmp_path_factory.mktemp("texts")
    rows = [{"prompt": f"where is book number {i}?"} for i in range(ROWS)]
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (root / "question.jinja").write_text("Be short.\n{{ prompt }}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "a-key-of-this-test")
        form = Answers(prompt=Template.of(str(root / "question.jinja")))
        wire = OpenAIWire(model="teacher-1", base_url=f"http://127.0.0.1:{port}/v1")
        api = Api(wire=wire, price={"input": 1.0, "output": 2.0})
        prompts = read_prompts(str(root / "prompts.jsonl"), {}, form)
        out, cache = root / "answers.jsonl", root / "cache"
        label(prompts, api, Options(Sampling(), form=form), out, cache, progress, root / "prompts.jsonl")
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    options = Curating(Reading(), {}, (), shares)
    curate(str(out), root / "curated", options, cache, progress)
    return root


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(world, tmp_path / "moved", ignore=shutil.ignore_patterns("cache"))


def test_a_file_of_answers_leads_back_to_its_prompts_and_its_ledger(copy: Path, seen: Callable[..., Seen]) -> None:
    code, text = seen(copy / "answers.jsonl")
    assert code == 0, text
    for words in (
        "prompts prompts.jsonl  verified", "template question.jinja  verified", "provider openai, model teacher-1",
        f"requests {ROWS}, answers {ROWS}, refused 0, failed 0", f"the answers of all {ROWS} rows are replies in it",
        "all rows name this teacher",
    ):  # fmt: skip
        assert words in text, text


def test_a_curated_folder_leads_back_to_the_answers(copy: Path, seen: Callable[..., Seen]) -> None:
    code, text = seen(copy / "curated")
    assert code == 0, text
    assert "train.jsonl  verified" in text and "answers.jsonl  verified" in text and "template question.jinja" in text
    change(copy / "curated" / "train.jsonl", '"prompt": "', '"prompt": "x ')
    code, text = seen(copy / "curated" / "train.jsonl")
    assert code == 1 and "changed: train.jsonl  line 1 changed" in text, text
    edit(copy / "answers.jsonl", 3, lambda row: row.update(answer="better"))
    _, text = seen(copy / "curated")
    assert "answers.jsonl  line 3 changed" in text, text


def edit(file: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    lines = file.read_text().splitlines()
    row = json.loads(lines[number - 1])
    change(row)
    lines[number - 1] = json.dumps(row, ensure_ascii=False)
    file.write_text("\n".join(lines) + "\n")


def spend(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(statement)
        connection.commit()


LEDGER = "answers.jsonl.ledger.sqlite"
PLANTS: list[tuple[Callable[[Path], object], tuple[str, ...]]] = [
    (
        lambda root: edit(root / "answers.jsonl", 3, lambda row: row.update(answer="better")),
        ("answers.jsonl  line 3 changed", "line 3: the ledger has no such answer"),
    ),
    (
        lambda root: edit(root / "answers.jsonl", 5, lambda row: row["written_by"].update(model="teacher-2")),
        ("line 5: model teacher-2, not teacher-1",),
    ),
    (lambda root: change(root / "prompts.jsonl", "number 7", "number 70"), ("prompts prompts.jsonl  line 8 changed",)),
    (lambda root: change(root / "question.jinja", "Be short", "Be long"), ("template question.jinja  line 1 changed",)),
    (
        lambda root: spend(root / LEDGER, "DELETE FROM requests WHERE rowid = 1"),
        (f"answers {ROWS - 1}, {ROWS} recorded",),
    ),
    (
        lambda root: spend(root / LEDGER, "UPDATE replies SET reply = '{}' WHERE rowid = 2"),
        ("the ledger has no such answer",),
    ),
    (lambda root: (root / LEDGER).write_bytes(b"no database"), (f"ledger {LEDGER}", "cannot be read")),
]


@pytest.mark.parametrize(("plant", "words"), PLANTS)
def test_each_change_is_named(
    copy: Path, seen: Callable[..., Seen], plant: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    plant(copy)
    code, text = seen(copy / "answers.jsonl")
    changes = "\n".join(line for line in text.splitlines() if line.startswith("changed: "))
    assert code == 1 and all(each in changes for each in words), text


def test_what_is_missing_or_was_never_recorded(copy: Path, seen: Callable[..., Seen]) -> None:
    (copy / LEDGER).unlink()
    code, text = seen(copy / "answers.jsonl")
    assert code == 2 and "missing: ledger answers.jsonl" in text
    (copy / "answers.jsonl.label.json").unlink()
    code, text = seen(copy / "answers.jsonl")
    assert code == 2 and "not recorded: label" in text and "model teacher-1" in text


def test_a_ledger_that_other_jobs_share_may_grow(copy: Path, seen: Callable[..., Seen]) -> None:
    columns = "provider, model, state, created, size"
    spend(
        copy / LEDGER,
        f"INSERT INTO requests (key, {columns}) SELECT 'another', {columns} FROM requests LIMIT 1",
    )
    code, text = seen(copy / "answers.jsonl")
    assert code == 0 and f"requests {ROWS + 1}" in text, text
