"""Embedding models after training: an export of a run is judged by the task's own score, and a vector's latency is measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.stats import spearmanr
from warm import Command

from mangakd.cli.latency import latency
from mangakd.evaluation import predictions
from mangakd.evaluation.report.export import FOLDER
from mangakd.runs.exports import data_of

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

WORDS = [f"{one}{other}" for one in ("ka", "mo", "ri") for other in ("no", "ta", "su")]


def lines(file: Path, rows: int, scores: bool) -> str:
    """Pairs that share some of six words, with their number as the score, or anchors and positives that share five."""
    rng, content = np.random.default_rng(rows), []
    for i in range(rows):
        one, other = (list(rng.permutation(WORDS)[:6]) for _ in range(2))
        shared = i % 6 if scores else 5
        pair = {"anchor": " ".join([*one, str(i)]), "positive": " ".join(one[:shared] + other[shared:])}
        content.append(pair | ({"score": i % 6} if scores else {}))
    file.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(file)


@pytest.mark.parametrize(("monitor", "scores"), [("spearman", True), ("ndcg@10", False)])
def test_a_run_is_exported_and_timed(
    monitor: str, scores: bool, tiny_fresh: Path, command: Command, tmp_path: Path
) -> None:
    """The files lack the task's other columns, and the command reads them again to calibrate."""
    counts = {"path": 32, "val_path": 24, "test_path": 30}
    files = [f"data.{key}={lines(tmp_path / f'{key}.jsonl', rows, scores)}" for key, rows in counts.items()]
    run = tmp_path / "run"
    done = command(
        "train.py", "task=embedding", "data=files", f"task.monitor={monitor}", "task.most=5", f"teacher.path={tiny_fresh}",
        "student.layers=[1,3]", "trainer.max_epochs=1", f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={run}", *files,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    done = command(
        "scripts/export.py", f"student={run}", "export=[onnx]", "export.onnx.variants=[onnx_fp32,onnx_int8_static]"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((run / FOLDER / "export.json").read_text())
    assert record["score"] == monitor and record["rows"]["validation"] == 24 and record["rows"]["test"] == 30
    metrics = json.loads((run / "metrics.json").read_text())
    assert record["pytorch"]["score"] == pytest.approx(metrics[f"val/{monitor}"], abs=1e-3)
    saved = predictions.load(run, "validation").answers
    alike = spearmanr(*((each["anchor"] * each["positive"]).sum(1) for each in (saved["student"], saved["teacher"])))
    assert (
        record["pytorch"]["agreement_teacher"] == pytest.approx(alike.statistic, abs=1e-4) and alike.statistic < 0.9995
    )
    times = latency(run)
    assert times["what"] == "one text" and 0 < times["p50_ms"] <= times["p95_ms"]
    assert not agrees_after_an_edit(run, tmp_path / "val_path.jsonl")


def agrees_after_an_edit(run: Path, file: Path) -> bool:
    """Whether an export compares the edited validation rows with the teacher's answers to those of the run."""
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    config = OmegaConf.load(run / "config.yaml")
    task = instantiate(config.task)
    data = data_of(run, task, instantiate(config.data).load(task.columns, task.optional))
    assert data.test is not None and data.test.served is not None and data.test.served.teacher is not None
    return data.validation.served is not None and data.validation.served.teacher is not None
