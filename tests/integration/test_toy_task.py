"""A task from outside: the example package's `urgency`, a score for each text, by the command, from teacher to report."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from omegaconf import OmegaConf
from warm import Command

from mangakd.evaluation import predictions
from mangakd.export.data import of_run

SEARCH = "hydra.searchpath=[pkg://mangashop_templates.conf]"
INSTALLED = {"PYTHONPATH": str(REPO / "tests" / "example_package")}
SCORES = {"order": 0.1, "refund": 0.5, "shipping": 0.9}


def questions(file: Path, each: int, column: str = "score") -> str:
    rows = [f"where is my {word} number {i},{score}" for i in range(each) for word, score in SCORES.items()]
    file.write_text(f"text,{column}\n" + "\n".join(rows) + "\n")
    return str(file)


@pytest.fixture
def given(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    sizes = {"path": 20, "val_path": 6, "test_path": 7}
    files = [f"data.{key}={questions(tmp_path / f'{key}.csv', each)}" for key, each in sizes.items()]
    return [
        SEARCH, "task=urgency", *files, f"teacher.path={tiny_fresh}", "student.layers=[1,3]", "hardware=cpu",
        "hardware.precision=32-true", "hardware.batch_size=4", "teacher.fit.epochs=12", "teacher.fit.lr=2e-3", "optim.lr=2e-3",
        "trainer.max_epochs=6", f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip


def test_a_task_of_a_package_runs_from_teacher_to_report(given: list[str], command: Command, tmp_path: Path) -> None:
    done = command("train.py", *given, "baseline=true", **INSTALLED)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    run = tmp_path / "run"
    metrics, test = json.loads((run / "metrics.json").read_text()), predictions.load(run, "test")
    score = test.truth["score"]
    for model, prefix in {"teacher": "teacher/", "student": "", "baseline": "baseline/"}.items():
        error = float(np.sqrt(((test.answers[model]["logits"][:, 0].astype(np.float64) - score) ** 2).mean()))
        assert metrics[f"{prefix}test/rmse"] == pytest.approx(error) and error < 0.8 * score.std()
    assert metrics["test/retention"] == pytest.approx(metrics["teacher/test/rmse"] / metrics["test/rmse"])
    assert {"val/rmse", "test/pearson", "test/to_teacher", "baseline/test/to_teacher"} <= metrics.keys()
    assert "train/loss/score" in (run / "logs" / "metrics.csv").read_text()
    assert json.loads((run / "student" / "config.json").read_text())["problem_type"] == "regression"
    assert SEARCH in (run / "command.txt").read_text()  # without it the task would be unknown
    report = (run / "report.md").read_text()
    assert "root mean squared error" in report and "| error |" in report and "accuracy" not in report
    assert "RMSE" in done.stdout and "RMSE to the teacher" in done.stdout
    assert of_run(run, ()).test.labels == [(repr(value),) for value in score.tolist()]  # type: ignore[union-attr]
    config = OmegaConf.load(run / "config.yaml")
    assert list(config.losses) == ["output", "score"] and "agreement" in config.gate and config.gate.agreement is None


def test_preflight_of_such_a_task_tells_all_problems(given: list[str], command: Command, tmp_path: Path) -> None:
    questions(tmp_path / "path.csv", 20, "urgency")
    wrong = ["losses=[hard_label]", "task.monitor=accuracy", "stages=output_only", "validate=true"]
    done = command("train.py", *given, *wrong, **INSTALLED)
    assert done.returncode == 1
    for part in (
        "has no column 'score'; it has text, urgency. Set data.columns.score to one of these",
        "task.monitor='accuracy' is no metric",
    ):
        assert part in done.stderr, done.stderr
    questions(tmp_path / "path.csv", 20)
    done = command("train.py", *given, *wrong, **INSTALLED)
    assert "losses.hard_label (HardLabelLoss) needs a head of labels" in done.stderr, done.stderr
