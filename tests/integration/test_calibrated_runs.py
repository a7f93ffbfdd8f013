"""A run with teacher.calibrate and teacher.smooth: what it learns from is what its metrics, report and record say."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from mangakd.core.errors import UserError
from mangakd.core.temperature_fit import fit_temperature
from mangakd.evaluation import predictions

Compose, Run = Callable[..., DictConfig], Callable[[DictConfig, Path], None]
SHARE = 0.62  # of a teacher with random weights, whose probabilities are near 1/3


@pytest.mark.parametrize("teacher", ["local", "cached"])
def test_a_run_says_what_was_done_to_its_soft_targets(
    compose: Compose, run_here: Run, small_run: list[str], teacher: str, tmp_path: Path
) -> None:
    own = [f"teacher={teacher}", "teacher.calibrate=temperature", f"teacher.smooth={SHARE}", "baseline=false"]
    run_here(compose(*small_run, "trainer.max_epochs=1", *own), tmp_path / "run")
    run_here(compose(*small_run, "trainer.max_epochs=1", f"teacher={teacher}", "baseline=false"), tmp_path / "raw")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    raw = predictions.load(tmp_path / "raw", "validation")
    fitted = fit_temperature(raw.answers["teacher"]["logits"], raw.truth["labels"])
    assert metrics["teacher/calibration_temperature"] == pytest.approx(fitted, rel=1e-3)
    assert metrics["teacher/smooth"] == SHARE
    logits = predictions.load(tmp_path / "run", "test").answers["teacher"]["logits"].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert p.max() <= 1 - SHARE + 1e-4
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"divided by T = {fitted:.3g}" in report and "cut at a probability of 0.38 (teacher.smooth)" in report
    assert "divided by T" not in (tmp_path / "raw" / "report.md").read_text()
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())["teacher"]
    assert record["calibration"]["teacher/smooth"] == SHARE and bool(record["store"]) is (teacher == "cached")
    before = json.loads((tmp_path / "raw" / "provenance.json").read_text())["teacher"]
    assert before["calibration"] == {} and before["fingerprint"] != record["fingerprint"]


def test_a_share_that_leaves_nothing_is_refused_before_training(
    compose: Compose, run_here: Run, small_run: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"teacher\.smooth=0\.7 must be below 1 − 1 / 3"):
        run_here(compose(*small_run, "teacher.smooth=0.7"), tmp_path / "run")
