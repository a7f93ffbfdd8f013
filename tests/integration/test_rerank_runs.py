"""Reranking by the command, from teacher to report, on made-up lists of documents, and what preflight refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import checked
from ranking_rows import rows, written
from warm import Command

from mangakd.cli import plan
from mangakd.cli.given import run_of
from mangakd.cli.latency import latency
from mangakd.evaluation import predictions
from mangakd.tasks.rerank.metrics import Ranking, mrr, ndcg


@pytest.fixture
def given(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    sizes = {"path": 60, "val_path": 16, "test_path": 20}
    files = [
        f"data.{key}={written(tmp_path / f'{key}.jsonl', rows(count, seed))}"
        for seed, (key, count) in enumerate(sizes.items())
    ]
    return [
        "task=rerank", *files, f"teacher.path={tiny_fresh}", "student.layers=[1,3]", "hardware=cpu", "hardware.precision=32-true",
        "hardware.tasks.score.batch_size=6", "data.max_length=24", "teacher.fit.epochs=5", "teacher.fit.lr=3e-3",
        "optim.lr=3e-3", "trainer.max_epochs=2", f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip


def test_from_teacher_to_report(given: list[str], command: Command, tmp_path: Path) -> None:
    done = command("train.py", *given, "losses=[listwise_kl,list_net,hidden,relation]", "baseline=true")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    run = tmp_path / "run"
    metrics, test = json.loads((run / "metrics.json").read_text()), predictions.load(run, "test")
    grades = test.truth["grades"]
    prefixes = {
        "teacher": "teacher/", "student": "", "baseline": "baseline/", "untrained student": "reference/untrained student/",
    }  # fmt: skip
    assert set(test.models) >= set(prefixes)
    for model, prefix in prefixes.items():
        logits = test.answers[model]["logits"]
        assert logits.shape == grades.shape == (20, 3) and (np.isinf(logits) == np.isnan(grades)).all()
        ranking = Ranking.of(logits, grades)
        assert metrics[f"{prefix}test/ndcg_exp@3"] == pytest.approx(ndcg(ranking, 3, exponential=True).value)
        assert metrics[f"{prefix}test/mrr@10"] == pytest.approx(mrr(ranking, 10, None).value)
    chance = ndcg(Ranking.of(np.where(np.isnan(grades), -np.inf, 0), grades), 3, exponential=True).value
    assert min(metrics["teacher/test/ndcg_exp@3"], metrics["test/ndcg_exp@3"]) > chance + 0.1
    assert {"val/ndcg_exp@3", "test/agreement", "test/tau", "test/kl", "baseline/test/kl"} <= metrics.keys()
    report, logged = (run / "report.md").read_text(), (run / "logs" / "metrics.csv").read_text()
    for part in (
        "Randomisation test",
        "Spread of scores",
        "Changed first documents",
        "untrained student",
        "no relevant document",
    ):
        assert part in report
    assert all(f"train/loss/{name}" in logged for name in ("listwise_kl", "list_net", "hidden", "relation"))
    assert json.loads((run / "student" / "config.json").read_text())["problem_type"] == "regression"
    assert "MRR@10" in done.stdout and "steps of 6 rows" in done.stdout
    assert test.lists["documents"] == [row["documents"] for row in rows(20, 2)]
    assert latency(run)["what"] == "one query with all its documents"


def test_preflight(given: list[str], command: Command, tmp_path: Path) -> None:
    content = rows(60, 0)
    content[6]["grades"] = [1, 0]
    written(tmp_path / "path.jsonl", content)
    done = command("train.py", *given, "losses=[hard_label,margin_mse]", "task.monitor=accuracy", "validate=true")
    assert done.returncode == 1
    for part in (
        "line 7 of data.path=", "has 3 documents and 2 grades",
        "task.monitor='accuracy' is no metric. Known: ndcg_exp@3, ndcg_exp@10, ndcg_lin@10, mrr@10.",
    ):  # fmt: skip
        assert part in done.stderr, done.stderr
    written(tmp_path / "path.jsonl", rows(60, 0))
    done = command("train.py", *given, "losses=[hard_label,margin_mse]", "validate=true")
    assert "losses.hard_label (HardLabelLoss) needs a head of labels; the head is a score" in done.stderr, done.stderr
    content[3]["query"], content[6]["grades"] = "word " * 300, rows(60, 0)[6]["grades"]
    written(tmp_path / "path.jsonl", content)
    done = command("train.py", *given, "validate=true")
    for part in (
        "line 4 of data.path=",
        "data.max_length",
    ):  # without room for a document; told before a model is trained
        assert done.returncode == 1 and part in done.stderr, done.stderr


@pytest.fixture
def short(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    """Four steps of six queries, beside a teacher of one epoch."""
    files = [
        f"data.{key}={written(tmp_path / f'{key}.jsonl', rows(12, seed))}"
        for seed, key in enumerate(("path", "val_path", "test_path"))
    ]
    return [
        "task=rerank", *files, f"teacher.path={tiny_fresh}", "student.layers=[1,3]", "hardware=cpu", "hardware.precision=32-true",
        "hardware.batch_size=6", "data.max_length=24", "teacher.fit.epochs=1", "trainer.max_epochs=2", "logger=[]",
        "losses=[listwise_kl,list_net,margin_mse,hidden]", "checkpoint.every_steps=1",
    ]  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(
    short: list[str],
    compose: Callable[..., Any],
    run_here: Callable[..., None],
    stopped_at: Callable[..., None],
    tmp_path: Path,
) -> None:
    run_here(compose(*short), tmp_path / "whole")
    stopped_at(3, lambda: run_here(compose(*short), tmp_path / "stopped"), within="stopped")
    run_here(compose(*short, "resume=auto"), tmp_path / "stopped")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_teacher_that_learns_from_sharper_grades_is_another_one(
    short: list[str], compose: Callable[..., Any], tmp_path: Path
) -> None:
    """It was found in the cache under the same name."""
    for sharpness in (1.0, 3.0):
        run = checked(compose(*short, f"task.sharpness={sharpness}"), tmp_path / f"{sharpness}")
        run.material.members.unread(run.parts.teacher.models[0])
    assert len([*(tmp_path / "cache" / "teachers").iterdir()]) == 2


def test_a_plan_counts_the_documents(short: list[str], compose: Callable[..., Any], tmp_path: Path) -> None:
    config = compose(*short)
    job = plan.estimated(config, run_of(config, tmp_path / "run", "cpu")).job
    assert (job.examples, job.eval_examples, job.batch) == (34, 34, 17), "12 queries, one of them with one document"
