"""scripts/label.py as a process: killed anywhere and started again, it ends with the bytes of a run that nobody killed."""

import json
import random
import time
from pathlib import Path

import pytest
from conftest import REPO
from hydra import compose, initialize_config_dir
from language_folder import save_language_model
from omegaconf import DictConfig
from warm import Command

from mangakd.cli import label
from mangakd.cli.app import explain, register_resolvers
from mangakd.data.sources import Files
from mangakd.tasks.response.task import Response

QUESTIONS = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("label")
    save_language_model(folder / "model")
    rows = [{"question": f"where is book {i}? {'thank you ' * (i % 5)}"} for i in range(QUESTIONS)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def words(world: Path, out: str) -> list[str]:
    return [
        f"provider.path={world / 'model'}", f"data.path={world / 'prompts.jsonl'}", "data.columns.prompt=question",
        f"out={world / out}", "max_new_tokens=12", "temperature=1", "samples=2", "provider.tokens=70", "cut=keep",
        f"paths.cache={world / 'cache'}",
    ]  # fmt: skip


def config(world: Path, out: str, *more: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        return compose("label", [*words(world, out), *more])


def test_a_killed_command_ends_with_the_same_bytes(
    world: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    label.run(config(world, "whole.jsonl"))
    assert f"{2 * QUESTIONS} answers to {2 * QUESTIONS} requests" in capsys.readouterr().out
    killed, chance = world / "killed.jsonl", random.Random(0)
    for _ in range(2):
        before = killed.stat().st_size if killed.exists() else 0
        child = command.start("scripts/label.py", *words(world, "killed.jsonl"))
        while child.poll() is None and (not killed.exists() or killed.stat().st_size <= before):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        child.kill()
        assert child.wait() == -9
        with killed.open("a") as stream:
            stream.write('{"half a ')  # as a kill within a write leaves it
    lines = killed.read_bytes().count(b"\n")
    assert 0 < lines < 2 * QUESTIONS
    again = command("scripts/label.py", *words(world, "killed.jsonl"))
    assert again.returncode == 0 and f"holds {lines} answers; resuming" in again.stdout
    assert killed.read_bytes() == (world / "whole.jsonl").read_bytes()

    task = Response()
    corpus = task.prepare(Files(path=str(killed)).load(task.columns, task.optional))
    assert sum(len(rows) for rows in corpus.splits.values()) == 2 * QUESTIONS


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("out=null", "out is not set"),
        ("out=answers.csv", "must end with .jsonl"),
        ("data.path=null", "data.path is not set"),
        ("data.columns.prompt=prompt", "no column 'prompt'"),
        ("provider.path=./nowhere", "there is no such folder"),
        ("provider.path='???'", "provider.path is not set"),
        ("provider.dtype=int3", "provider.dtype=int3"),
        ("provider.tokens=0", "provider.tokens=0"),
        ("max_new_tokens=128", "leaves no room"),
        ("top_p=2", "top_p=2"),
        ("writes=poems", "writes=poems is unknown. Known: answers, rewrites, expansions"),
        ("writes=rewrites", "no column 'utterance'"),
        ("provider=seq2seq", "set writes=rewrites"),
    ],
)
def test_mistakes_are_told(word: str, message: str, world: Path) -> None:
    with pytest.raises(Exception) as error:
        label.run(config(world, "other.jsonl", word))
    assert message in (explain(error.value, "label") or "")
