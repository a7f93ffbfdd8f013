"""Reranking by the command on a folder in BEIR's layout, with the scores of a run file in place of a teacher's model."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import save_tiny
from warm import Command

from mangakd.evaluation import predictions

TOPICS = ("order", "refund", "shipping", "track")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of 48 queries and 24 documents; BM25 finds a third of them, of which a sixth is relevant."""
    place = tmp_path / "collection"
    (place / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i}", "text": f"where is my {TOPICS[i % 4]} number {i // 4}"} for i in range(24)]
    queries = [{"_id": f"q{i}", "text": f"{TOPICS[i % 4]} of {i}"} for i in range(48)]
    for name, content in (("corpus", corpus), ("queries", queries)):
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    for name, numbers in (("train", range(32)), ("dev", range(32, 40)), ("test", range(40, 48))):
        rows = [f"q{i}\td{i % 4 + 4 * (i % 3)}\t1" for i in numbers]
        (place / "qrels" / f"{name}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return place


def trec(file: Path, without: str = "") -> str:
    """A teacher that knows the relevant document. without: a pair to leave out."""
    lines = [
        f"q{i} Q0 d{j} 1 {3.5 * (j == i % 4 + 4 * (i % 3)) - 0.1 * j} teacher" for i in range(48) for j in range(24)
    ]
    file.write_text("\n".join(line for line in lines if not without or without not in line))
    return str(file)


@pytest.fixture
def given(folder: Path, tmp_path: Path) -> list[str]:
    student = save_tiny(tmp_path / "student", labels=None)
    return [
        "task=rerank", "data=beir", f"data.path={folder}", "data.candidates=5", "teacher=scores",
        f"teacher.path={trec(tmp_path / 'run.trec')}", f"student.path={student}", "hardware=cpu",
        "hardware.precision=32-true", "hardware.tasks.score.batch_size=8", "data.max_length=24", "trainer.max_epochs=1",
        f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip


def test_a_run_with_scores_for_a_teacher(given: list[str], command: Command, tmp_path: Path) -> None:
    done = command("train.py", *given, "losses=[margin_mse,listwise_kl]", "baseline=true")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    run = tmp_path / "run"
    metrics, test = json.loads((run / "metrics.json").read_text()), predictions.load(run, "test")
    assert metrics["teacher/test/mrr@10"] == 1 and "teacher/params" not in metrics
    grades, scores = test.truth["grades"], test.answers["teacher"]["logits"]
    assert (
        grades.shape == (8, 5)
        and ((scores > 1) == (grades == 1)).all()
        and np.isfinite(test.answers["student"]["logits"]).all()
    )
    assert "run.trec" in (run / "student" / "README.md").read_text()
    assert "candidates hold 100.0 % of the relevant documents" in done.stdout + done.stderr
    assert {"test/kl", "baseline/test/kl"} <= metrics.keys() and (run / "report.md").is_file()


def test_what_preflight_says(given: list[str], command: Command, tmp_path: Path) -> None:
    lacking = [f"teacher.path={trec(tmp_path / 'less.trec', without='q3 Q0 d3 ')}", "losses=[listwise_kl,hidden]"]
    done = command("train.py", *given, *lacking, "validate=true")
    assert done.returncode == 1
    for words in (
        "has no score for 1 of the 162 pairs of train: 'track of 3' with 'where is my track number 0' ",
        "(line 4 of data.path=",
        "losses.hidden needs hidden of layers",
        "teacher=scores gives answers only",
    ):
        assert words in done.stdout + done.stderr, words
    done = command("train.py", *given, "student.path=null", "student.layers=[1]", "validate=true")
    assert done.returncode == 1 and "no model that a student of layers or sizes could start from" in done.stderr
