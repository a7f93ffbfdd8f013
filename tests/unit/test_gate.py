"""The gate: what each kind of line tests, what is not measured, and entries that cannot be tested."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from mangakd.core.errors import UserError
from mangakd.evaluation.bootstrap import Estimate
from mangakd.evaluation.gate import Line, Measure, measures, summary, verdicts
from mangakd.tasks.classification.judge import ClassificationJudge

JUDGE = ClassificationJudge()
MEASURES = measures(JUDGE)
DEFAULT = Path(__file__).resolve().parents[2] / "conf" / "gate" / "default.yaml"


def estimate(value: float, spread: float = 0.01) -> Estimate:
    """With an interval of value ± spread."""
    return Estimate(value, value + np.linspace(-1, 1, 2001) / 0.95 * spread)


@pytest.mark.parametrize(
    ("threshold", "limit", "tested", "passed"),
    [
        ("at_least", 0.90, "estimate", True),
        ("at_least", 0.901, "estimate", False),
        ("at_least", 0.895, "bound", False),
        ("at_least", 0.889, "bound", True),
        ("at_most", 0.90, "estimate", True),
        ("at_most", 0.905, "bound", False),
        ("at_most", 0.911, "bound", True),
        ("above", 0.90, "estimate", False),
        ("above", 0.889, "bound", True),
        ("below", 0.90, "estimate", False),
        ("below", 0.911, "bound", True),
    ],
)
def test_thresholds(threshold: str, limit: float, tested: str, passed: bool) -> None:
    """0.90 [0.89, 0.91]: a bound is the end that makes it harder."""
    better = "higher" if threshold in ("at_least", "above") else "lower"
    entry = {"measure": "share", "tested": tested, threshold: limit}
    verdict = Line.of("line", entry, {"share": Measure("share", "{:.1%}", better, "")}).verdict(estimate(0.9), "run")
    assert verdict.passed is passed and "90.0% [89.0%, 91.0%]" in verdict.result


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_a_lift_that_may_be_chance_fails(value: float) -> None:
    line = Line.of("lift", {"measure": "lift", "tested": "bound", "above": 0}, MEASURES)
    assert line.verdict(estimate(value, spread=0.5), "run").passed is False
    assert line.verdict(estimate(value + 0.6, spread=0.5), "run").passed is True


def test_the_default_gate_has_the_thresholds_of_the_docs_and_says_what_is_missing() -> None:
    gate: Any = OmegaConf.to_container(OmegaConf.load(DEFAULT))
    limits = {name: Line.of(name, entry, MEASURES) for name, entry in gate.items()}
    assert {name: (line.threshold, line.limit) for name, line in limits.items()}.items() >= {
        "agreement": ("at_least", 0.95), "retention": ("at_least", 0.97), "rare_classes": ("at_least", 0.87),
        "calibration": ("at_most", 0.05), "lift": ("above", 0.0),
    }.items()  # fmt: skip
    assert limits["lift"].tested == "bound"
    numbers = {"agreement": estimate(0.97), "retention": estimate(0.9), "megabytes": 40.0}
    lines = verdicts(gate, JUDGE, numbers, "runs/a")
    passed = {verdict.name: verdict.passed for verdict in lines}
    assert passed["agreement"] is True and passed["retention"] is False and passed["size"] is True
    assert [name for name, word in passed.items() if word is None] == ["rare_classes", "calibration", "lift", "latency"]
    results = {verdict.name: verdict.result for verdict in lines}
    assert "baseline=true" in results["lift"] and "mangakd report run=runs/a latency=true" in results["latency"]
    assert summary(lines) == (
        "2 of 7 lines pass; failed: retention; not measured: rare_classes, calibration, lift, latency."
    )


def test_a_line_set_to_null_is_left_out() -> None:
    assert verdicts({"agreement": None}, JUDGE, {}, "run") == []


def test_every_measure_can_be_shown() -> None:
    for name, measure in MEASURES.items():
        assert measure.format.format(0.5) and measure.missing.format(run="x", report="y")
        threshold = "at_least" if measure.better == "higher" else "at_most"
        assert Line.of("a", {"measure": name, threshold: 1}, MEASURES).verdict(1.0, "run").passed


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"measure": "agrement", "at_least": 0.9}, "did you mean agreement"),
        ({"measure": "agreement", "at_leest": 0.9}, "did you mean at_least"),
        ({"measure": "agreement"}, "needs one threshold"),
        ({"measure": "agreement", "at_least": 0.9, "at_most": 1}, "needs one threshold"),
        ({"measure": "agreement", "at_least": "high"}, "must be a number"),
        ({"measure": "kl", "at_least": 0.1}, "of kl, lower is better. Use at_most or below"),
        ({"measure": "retention", "below": 0.1}, "of retention, higher is better. Use at_least or above"),
        ({"measure": "agreement", "tested": "mean", "at_least": 1}, "estimate, bound"),
    ],
)
def test_an_entry_that_cannot_be_tested_is_named(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=r"gate\.mine") as error:
        verdicts({"mine": entry}, JUDGE, {}, "run")
    assert said in str(error.value)
