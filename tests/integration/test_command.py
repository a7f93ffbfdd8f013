"""`python train.py` as a real process: what it leaves, Ctrl-C and resume, and what the student folder is worth elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LABELS, REPO
from safetensors.torch import load_file
from warm import Command, Done

SMALL = [
    "data=files", "trainer.max_epochs=2", "teacher.fit.epochs=8", "teacher.fit.lr=3e-3", "student=teacher_layers",
    "student.layers=[2]", "data.max_length=16", "hardware=cpu", "hardware.batch_size=16",
    "losses.hard_label._target_=trouble.Trouble",
]  # fmt: skip
TESTS = {"PYTHONPATH": os.pathsep.join([str(REPO / "tests"), os.environ.get("PYTHONPATH", "")])}
World = tuple[list[str], Path, str]


def by_python(*typed: str, **environment: str) -> Done:
    return subprocess.run(
        [sys.executable, str(REPO / "train.py"), *typed], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, **TESTS, **environment},
    )  # fmt: skip


def printed_by(done: Done) -> str:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def world(tiny_fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """(overrides of all runs, run folder, what was printed) of one whole run with a baseline."""
    base = tmp_path_factory.mktemp("command")
    rows = [f"where is my {label} number {i},{label}" for i in range(100) for label in LABELS]
    (base / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    typed = [*SMALL, f"data.path={base / 'train.csv'}", f"teacher.path={tiny_fresh}", f"paths.cache={base / 'cache'}"]
    return typed, base / "run", printed_by(by_python(*typed, "baseline=true", f"hydra.run.dir={base / 'run'}"))


def test_a_run_leaves_what_the_readme_says(world: World) -> None:
    _, folder, printed = world
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in (
        "test/accuracy", "test/macro_f1", "test/agreement", "test/kl", "test/ece", "teacher/test/accuracy",
        "baseline/test/accuracy", "student/params", "teacher/params", "train/samples_per_second",
    ):  # fmt: skip
        assert name in metrics
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml",
        "command.txt",
        "metrics.json",
        "provenance.json",
        "provenance_parts.json",
        "student",
        "checkpoints",
        "logs",
        "predictions",
        "report.html",
        "report.md",
    }
    assert (folder / "logs" / "metrics.csv").read_text().count("train/loss/output") == 1
    for row in ("teacher", "student without KD", "student"):
        assert f"│ {row} " in printed
    assert "_target_: mangakd.losses.output.OutputLoss" in (folder / "config.yaml").read_text()
    assert "${" not in (folder / "config.yaml").read_text()


def test_the_student_folder_loads_without_mangakd(world: World, tmp_path: Path) -> None:
    _, folder, _ = world
    script = (
        "import sys, transformers as t\n"
        "model = t.AutoModelForSequenceClassification.from_pretrained(sys.argv[1])\n"
        "answer = t.pipeline('text-classification', model=model, tokenizer=t.AutoTokenizer.from_pretrained(sys.argv[1]))\n"
        "label = answer('where is my order?')[0]['label']\n"
        "assert label in model.config.label2id and label != 'LABEL_0', label\n"
        "assert not any(name.startswith('mangakd') for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "student")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mangakd" not in (folder / "student" / "config.json").read_text()
    assert "Sources" in (folder / "student" / "README.md").read_text()


def test_ctrl_c_then_resume_ends_with_the_same_student(world: World, command: Command, tmp_path: Path) -> None:
    small, whole, _ = world
    typed = [*small, "baseline=true", f"hydra.run.dir={tmp_path / 'run'}"]
    steps = int(json.loads((whole / "metrics.json").read_text())["train/steps"])
    trouble = {"TROUBLE": f"0:{steps * 3 // 4}:CTRL-C"}  # in the second of two epochs
    stopped = command("train.py", *typed, **TESTS, **trouble)
    assert stopped.returncode == 130 and "resume=auto" in stopped.stdout, stopped.stdout + stopped.stderr
    printed = printed_by(command("train.py", *typed, "resume=auto", **TESTS))
    assert "student without KD" in printed
    ours, theirs = (load_file(f / "student" / "model.safetensors") for f in (tmp_path / "run", whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "run", whole)]
    assert metrics[0]["test/kl"] == metrics[1]["test/kl"]
    assert metrics[0]["baseline/test/accuracy"] == metrics[1]["baseline/test/accuracy"]


def test_cached_and_live_teachers_give_the_same_student(world: World, command: Command, tmp_path: Path) -> None:
    small, whole, _ = world
    printed_by(command("train.py", *small, "teacher=cached", f"hydra.run.dir={tmp_path / 'run'}", **TESTS))
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "run", whole))
    assert ours["test/accuracy"] == pytest.approx(theirs["test/accuracy"], abs=0.021)
    assert ours["test/kl"] == pytest.approx(theirs["test/kl"], rel=0.02)
    assert ours["teacher/test/accuracy"] == theirs["teacher/test/accuracy"]
