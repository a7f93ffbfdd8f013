"""What Hydra refuses of a command line, in our words; and real processes: exit code 1, no traceback."""

import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from conftest import REPO
from hydra.core.global_hydra import GlobalHydra

from mangakd.cli.app import main

# Hydra refuses these while it composes: (overrides, words of the message)
REFUSED: dict[str, tuple[list[str], str]] = {
    "unknown key": (
        ["distill.temprature=3"],
        "distill.temprature is no key or group; did you mean distill.temperature",
    ),
    "a column that the task has not": (
        [
            f"hydra.searchpath=[file://{REPO}/tests/example_package/mangashop_templates/conf]",
            "task=urgency",
            "data.columns={rating: x}",
        ],
        "data.columns.score, data.text_column? data.columns has: score. mangakd train --help",
    ),
    "keys beside it": (
        ["distill.temprature=3"],
        "? distill has: temperature, alpha, beta, gamma, lmbda. mangakd train --help",
    ),
    "last word of a key": (["lr=3"], "did you mean teacher.fit.lr, student.lr, optim.lr?"),
    "entry of a stage": (["stages.distil.lr=3"], "+stages.distil.lr=… adds the entry"),
    "a key of another command": (["traffic_per_day=1"], "traffic_per_day is no key or group. mangakd plan has it."),
    "unknown group": (["loses=output"], "loses is no key or group; did you mean losses"),
    "unknown option": (
        ["hardware=a10"],
        "hardware=a10 is unknown; did you mean a100, h100? Known: a100, a100_x4_fsdp, a10g_x2_ddp, auto",
    ),
    "one of a list": (["losses=[hard_label,outptu]"], "losses=outptu is unknown; did you mean output?"),
    "group of null": (["models=null"], "leave it out with ~"),
    "values for a group": (
        ["stages={distil: {epochs: 1}}"],
        "stages is a group and takes the names of its options (assistant_chain,",
    ),
    "group of a number": (["task=1"], "task=1: task is a group and takes the names of its options (embedding, intent,"),
    "group of lists": (["losses=[[output]]"], "losses is a group and takes the names of its options (attention,"),
    "group of nothing": (["losses="], "losses= has no value. Options: attention, binary, contrastive, hard_label,"),
    "commas without a sweep": (
        ["losses=hard_label,output"],
        "A list takes brackets: 'losses=[hard_label,output]', a sweep",
    ),
    "a text with a comma": (["data.path=a,b.csv"], "a text takes quotes: 'data.path=\"a,b.csv\"'"),
    "+ for a key that is there": (
        ["+distill.alpha=0.5"],
        "distill.alpha is a key already, so it takes no +: distill.alpha=0.5",
    ),
    "~teacher": (
        ["~teacher"],
        "~teacher: every run needs teacher. Leave ~teacher out, or choose one with teacher=… (cached,",
    ),
    "~data": (["~data"], "~data: every run needs data. Leave ~data out"),
    "~losses": (["~losses"], "~losses: every run needs losses. Leave ~losses out"),
    "~ for no key": (["~distill.alph"], "~distill.alph removes nothing; did you mean distill.alpha"),
    "~ with another value": (["~distill.alpha=3"], "~distill.alpha=3 removes nothing: distill.alpha is 0.7."),
    "~ for an option": (
        ["~losses/hidden"],
        "~losses/hidden removes nothing. An option is left out by naming the others",
    ),
    "unknown option with +": (["+experiment=quikstart"], "did you mean quickstart, "),
    "unknown launcher": (["hydra/launcher=joblb"], "hydra/launcher=joblb is unknown; did you mean joblib?"),
    "unknown key of Hydra": (["hydra.run.dri=x"], "did you mean hydra.run.dir"),
    "unknown config": (["--config-name=trian"], "--config-name=trian is unknown; did you mean train?"),
    "flags that do not go together": (["--resolve"], "--resolve flag can only be used in conjunction with --cfg"),
    "interpolation of no key": (
        ["distill.alpha=${distil.beta}", "--cfg", "job", "--resolve"],
        "distill.alpha=${distil.beta}: there is no key distil.beta; did you mean distill.beta",
    ),
    "no such environment variable": (
        ["distill.alpha=${oc.env:NO_SUCH_SHOP}", "--cfg", "job", "--resolve"],
        "distill.alpha=${oc.env:NO_SUCH_SHOP}: the environment has no variable NO_SUCH_SHOP. Set it, or give a value",
    ),
    "run folder": (
        ["hydra.run.dir=/dev/null/run"],
        "/dev/null/run cannot be written: Not a directory. Runs go to hydra.run",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_hydra_refuses(
    mistake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    overrides, expected = REFUSED[mistake]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    # Hydra closes all handlers that it finds; that of absl, which openvino imports, would take pytest's own stream with it.
    monkeypatch.setattr(logging, "_handlerList", [])
    monkeypatch.setattr(logging, "_handlers", weakref.WeakValueDictionary())
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as ended:
        main("train")
    GlobalHydra.instance().clear()
    assert ended.value.code == 1
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["distill.temprature=3"], ["did you mean distill.temperature"]),
        (
            ["validate=true", "distill.alpha=2", "student.layers=[7]"],
            ["2 problems found", "distill.alpha=2", "no layer [7]"],
        ),
    ],
)
def test_process_ends_with_1_and_no_traceback(
    overrides: list[str], expected: list[str], tiny_csv: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    base = ["data=files", f"data.path={tiny_csv}", f"teacher.path={tiny_teacher}", "hardware=cpu"]
    command = [sys.executable, str(REPO / "train.py"), f"hydra.run.dir={tmp_path / 'run'}", *base, *overrides]
    env = {**os.environ, "HYDRA_FULL_ERROR": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.returncode == 1
    assert done.stderr.lstrip().startswith("error: "), "neither Hydra's line nor a traceback precedes the message"
    assert all(words in done.stderr for words in expected), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "run").exists()
