"""`python train.py` as a real process: what it leaves, Ctrl-C and resume, and what the student folder is worth elsewhere."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.train_limit=300", "data.val_limit=80", "data.test_limit=80", "trainer.max_epochs=2", "teacher.fit.epochs=3",
    "student=teacher_layers", "student.layers=[2]", "data.max_length=16", "hardware=cpu", "hardware.batch_size=16",
]  # fmt: skip


def command(cache: Path, folder: Path, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), f"paths.cache={cache}", f"hydra.run.dir={folder}", *SMALL, *more]


def run(cache: Path, folder: Path, *more: str) -> str:
    done = subprocess.run(command(cache, folder, *more), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(cache, run folder, what was printed) of one whole run with a baseline."""
    base = tmp_path_factory.mktemp("command")
    return base / "cache", base / "run", run(base / "cache", base / "run", "baseline=true")


def test_a_run_leaves_what_the_readme_says(world: tuple[Path, Path, str]) -> None:
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


def test_the_student_folder_loads_without_mangakd(world: tuple[Path, Path, str], tmp_path: Path) -> None:
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


def test_ctrl_c_then_resume_ends_with_the_same_student(world: tuple[Path, Path, str], tmp_path: Path) -> None:
    cache, whole, _ = world
    typed = command(cache, tmp_path / "run", "baseline=true")
    process = subprocess.Popen(typed, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    for line in process.stdout:  # comes after the first epoch: the second is the last
        if line.startswith("distil student: step"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(timeout=600) == 130, rest
    assert "resume=auto" in rest
    printed = run(cache, tmp_path / "run", "baseline=true", "resume=auto")
    assert "student without KD" in printed
    ours, theirs = (load_file(f / "student" / "model.safetensors") for f in (tmp_path / "run", whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "run", whole)]
    assert metrics[0]["test/kl"] == metrics[1]["test/kl"]
    assert metrics[0]["baseline/test/accuracy"] == metrics[1]["baseline/test/accuracy"]


def test_cached_and_live_teachers_give_the_same_student(world: tuple[Path, Path, str], tmp_path: Path) -> None:
    cache, whole, _ = world
    run(cache, tmp_path / "run", "teacher=cached")
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "run", whole))
    assert ours["test/accuracy"] == pytest.approx(theirs["test/accuracy"], abs=0.021)
    assert ours["test/kl"] == pytest.approx(theirs["test/kl"], rel=0.02)
    assert ours["teacher/test/accuracy"] == theirs["teacher/test/accuracy"]
