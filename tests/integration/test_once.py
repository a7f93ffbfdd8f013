"""A run from Python: the command's run, its messages, and a process that is afterwards as it was."""

import json
import logging
import shlex
from pathlib import Path

import pytest
from conftest import LABELS, REPO
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from warm import Command

from mangakd.cli.once import train
from mangakd.core.errors import UserError

TIMES = ("run/seconds", "train/samples_per_second")


@pytest.fixture
def typed(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    rows = [f"where is my {label} number {i},{label}" for i in range(100) for label in LABELS]
    (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return [
        "data=files", f"data.path={tmp_path}/train.csv", f"teacher.path={tiny_fresh}", "teacher.fit.epochs=8",
        "teacher.fit.lr=3e-3", "student.layers=[1,3]", "hardware=cpu", "hardware.batch_size=16", "trainer.max_epochs=1",
        f"paths.cache={tmp_path}/cache",
    ]  # fmt: skip


def measured(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in TIMES}


def test_it_is_the_commands_run(
    typed: list[str], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = train(*typed, folder="here")
    assert here == tmp_path / "here"
    command("train.py", *typed, f"hydra.run.dir={tmp_path / 'typed'}", cwd=tmp_path).check_returncode()
    assert measured(here) == measured(tmp_path / "typed")
    commands = [shlex.split((run / "command.txt").read_text()) for run in (here, tmp_path / "typed")]
    assert commands[0][:2] == ["mangakd", "train"] and commands[1][:2] == ["python", str(REPO / "train.py")]
    assert commands[0][2:] == commands[1][2:]
    names = [{str(file.relative_to(run)) for file in run.rglob("*")} for run in (here, tmp_path / "typed")]
    assert names[0] == names[1]
    with pytest.raises(UserError, match=r"hydra.run.dir=.*here holds another run .*resume=auto"):
        train(*typed, folder=here)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("distill.temprature=2", "temprature is no key or group; did you mean distill.temperature"),
        ("losses=[output,hiden]", "losses=hiden is unknown; did you mean hidden"),
        ("distill.alpha=2", "found before training:\n  1. distill.alpha=2 must be"),
        ("distill.alpha=0.1,0.2", "distill.alpha=0.1,0.2"),
        ("sweep=temperature_alpha", "a sweep is many runs"),
        ("-m", "-m"),
    ],
)
def test_what_the_command_tells(override: str, words: str, typed: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        train(*typed, override, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bug_keeps_its_traceback_and_the_process_is_as_it_was(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: object) -> None:
        logging.basicConfig(handlers=[logging.FileHandler(tmp_path / "run.log")], force=True, level=logging.DEBUG)
        assert HydraConfig.get().runtime.output_dir == str(tmp_path / "run") and GlobalHydra.instance().is_initialized()
        raise RuntimeError("a bug")

    root = logging.getLogger()
    before = [*root.handlers], root.level, GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    monkeypatch.setattr("mangakd.cli.train.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train(*typed, folder=tmp_path / "run")
    assert before == ([*root.handlers], root.level, GlobalHydra.instance().hydra, HydraConfig.instance().cfg)
