"""`python train.py -m …` as processes: one teacher for all runs, failures that stop nobody, a killed sweep that goes on."""

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import as_hydra_gives_it
from omegaconf import DictConfig
from warm import Command, Started

from mangakd.cli.given import run_of
from mangakd.core.errors import UserError
from mangakd.runs.resume import finished_score

Sweep = Callable[..., tuple[int, str]]
POINTS = ["distill.temperature=1,2", "distill.alpha=0.3,0.7"]


@pytest.fixture(scope="module")
def small(tiny_fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    file = tmp_path_factory.mktemp("data") / "train.csv"
    rows = [f"where is my {label} number {i},{label}" for i in range(100) for label in ("order", "refund", "shipping")]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    return [
        "data=files", f"data.path={file}", f"teacher.path={tiny_fresh}", "teacher.fit.epochs=8", "teacher.fit.lr=3e-3",
        "student.layers=[1,3]", "hardware=cpu", "hardware.batch_size=16", "trainer.max_epochs=2", "logger=[csv]",
        f"paths.cache={tmp_path_factory.mktemp('cache')}",
    ]  # fmt: skip


@pytest.fixture
def start(command: Command) -> Callable[..., Started]:
    return lambda folder, *typed: command.start("train.py", *typed, f"hydra.sweep.dir={folder}")


@pytest.fixture
def sweep(start: Callable[..., Started]) -> Sweep:
    """sweep(folder, *typed) → exit code, and what was printed."""

    def run(folder: Path, *typed: str) -> tuple[int, str]:
        done = start(folder, *typed).end()
        return done.returncode, done.stdout + done.stderr

    return run


def finished(run: Path) -> bool:
    return "run/seconds" in (run / "metrics.json").read_text() if (run / "metrics.json").is_file() else False


def test_a_failed_run_stops_nobody_and_a_killed_sweep_makes_what_is_missing(
    small: list[str], start: Callable[..., Started], sweep: Sweep, tmp_path: Path
) -> None:
    typed = ["-m", "distill.temperature=0,1,2", "distill.alpha=0.3,0.7", *small]
    killed = start(tmp_path, *typed)
    end = time.monotonic() + 600
    while not finished(tmp_path / "2") and time.monotonic() < end:
        time.sleep(0.05)
    killed.process.kill()
    killed.end()
    assert finished(tmp_path / "2"), "0 and 1 fail: a temperature of 0"
    assert "distill.temperature" in (tmp_path / "1" / "error.txt").read_text()
    made = (tmp_path / "2" / "metrics.json").stat().st_mtime_ns

    code, printed = sweep(tmp_path, *typed, "resume=auto")
    assert code == 1 and "2 of 6 runs failed" in printed
    assert "Error executing job" not in printed and "Traceback" not in printed
    assert (tmp_path / "2" / "metrics.json").stat().st_mtime_ns == made and "finished before" in printed
    assert all(finished(tmp_path / str(n)) for n in (2, 3, 4, 5)) and not (tmp_path / "3" / "error.txt").exists()
    page, table = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "<rect" in page and "Runs without a result" in table and "6 runs, 4 points" in printed

    won = re.search(r"Its command: python \S*train.py (.+)", table)
    assert won is not None and "distill.temperature=" in won[1] and "resume" not in won[1]


def test_a_run_is_done_once_and_another_sweep_is_kept_out(
    small_run: list[str], compose: Callable[..., DictConfig], run_here: Callable[..., None], tmp_path: Path,
) -> None:  # fmt: skip
    def score(*more: str, sweep: bool = False) -> float | None:
        config = compose(*small_run, "trainer.max_epochs=1", "resume=auto", *more)
        given = run_of(as_hydra_gives_it(config), tmp_path / "run").given
        return finished_score(replace(given, sweep=sweep), "accuracy")

    assert score() is None
    run_here(compose(*small_run, "trainer.max_epochs=1", "resume=auto"), tmp_path / "run")
    assert score() == json.loads((tmp_path / "run" / "metrics.json").read_text())["val/accuracy"]
    assert score("hardware.workers=1", "logger=[csv]") is not None, "the same run elsewhere"
    assert score("distill.alpha=0.5") is None, "a run of its own goes on with other settings, and says so"
    with pytest.raises(UserError, match=r"another run of the sweep \(distill.alpha 0.7 → 0.5"):
        score("distill.alpha=0.5", sweep=True)


def test_ctrl_c_says_how_to_go_on(small: list[str], start: Callable[..., Started], tmp_path: Path) -> None:
    stopped = start(tmp_path, "-m", *POINTS, *small, "trainer.max_epochs=300")
    end = time.monotonic() + 600
    while not (tmp_path / "0" / "logs" / "metrics.csv").exists() and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(stopped.process.pid, signal.SIGINT)
    done = stopped.end()
    printed = done.stdout + done.stderr
    assert done.returncode == 130, printed
    assert f"hydra.sweep.dir={tmp_path} resume=auto" in printed and not (tmp_path / "1").exists()
    assert "hydra.run.dir" not in printed.rpartition("stopped by")[2]


def test_a_named_sweep_asks_one_teacher_once(small: list[str], sweep: Sweep, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    named = ["sweep=temperature_alpha", "distill.temperature=1,2", "distill.alpha=0.7", "seed=0,1"]
    code, printed = sweep(tmp_path / "sweep", *named, *small, f"paths.cache={cache}")
    assert code == 0, printed
    assert len(list((cache / "teachers").iterdir())) == 1 and len(list((cache / "stores").iterdir())) == 1
    assert len(re.findall(r"teacher on train", printed)) == 1 and printed.count(": 4 of 4") == 1
    table = (tmp_path / "sweep" / "report.md").read_text()
    assert re.search(r"\| \d\d?\d?\.\d% ± ", table), "an interval over two seeds"
    assert "seed=" not in table.split("Its command:")[1].splitlines()[0]


def test_seeds_from_scratch_have_teachers_and_rows_of_their_own(
    small: list[str], sweep: Sweep, tmp_path: Path, compose: Callable[..., DictConfig]
) -> None:
    follow = ["teacher.fit.seed=${seed}", "data.split_seed=${seed}"]
    typed = [
        "sweep=seeds",
        "seed=3,4",
        "baseline=true",
        *follow,
        *small,
        "trainer.max_epochs=1",
        f"paths.cache={tmp_path / 'cache'}",
    ]
    code, printed = sweep(tmp_path / "sweep", *typed)
    assert code == 0, printed
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 2
    runs = [json.loads((tmp_path / "sweep" / n / "metrics.json").read_text()) for n in ("0", "1")]
    assert runs[0]["teacher/test/ece"] != runs[1]["teacher/test/ece"]
    table = (tmp_path / "sweep" / "report.md").read_text()
    assert table.startswith("# Seeds: sweep") and "tested on different rows" in table
    for seed, metrics in zip((3, 4), runs, strict=True):
        student, baseline = metrics["test/accuracy"], metrics["baseline/test/accuracy"]
        assert f"| {seed} | {student:.1%} | {baseline:.1%} | {100 * (student - baseline):+.1f} | " in table
    again = shlex.split((tmp_path / "sweep" / "1" / "command.txt").read_text())[2:]
    config = compose(*again)
    assert (config.seed, config.teacher.fit.seed, config.data.split_seed) == (4, 4, 4), "its command repeats it alone"


def test_runs_side_by_side(small: list[str], sweep: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    code, printed = sweep(tmp_path, "distill.temperature=0,1,2", "-m", *parallel, *small)  # -m stands where it likes
    assert code == 1 and "1 of 3 runs failed" in printed, printed
    assert finished(tmp_path / "1") and finished(tmp_path / "2") and (tmp_path / "report.md").is_file()


def test_optuna_searches_and_goes_on_where_it_was(small: list[str], sweep: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    typed = ["sweep=search", *small]
    code, printed = sweep(tmp_path, *typed, "hydra.sweeper.n_trials=2")
    assert code == 0, printed
    first = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("0", "1")]
    code, printed = sweep(tmp_path, *typed, "hydra.sweeper.n_trials=3", "resume=auto")
    assert code == 0 and printed.count("finished before") == 2 and finished(tmp_path / "2"), printed
    assert first == [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("0", "1")]
    assert os.path.exists(tmp_path / "optimization_results.yaml")
