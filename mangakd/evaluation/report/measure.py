"""From a run's predictions to its numbers: every score of every model on the same resamples, and what the gate tests."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.evaluation import predictions as kept
from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import RESAMPLES, Estimate, Statistic, bootstrap
from mangakd.evaluation.calibration import fitted_temperature
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.statistics import Answers

LATENCY = "latency.json"


@dataclass(frozen=True)
class Measured:
    """scores: (model, score) → estimate on test. temperatures: model → refit on validation. gate: see gate.MEASURES.

    answers, refit: model → what it says on test, as trained and after the refit. metrics: the run's metrics.json.
    """

    test: Predictions
    answers: Mapping[str, Answers]
    refit: Mapping[str, Answers]
    temperatures: Mapping[str, float]
    scores: Mapping[tuple[str, str], Estimate]
    metrics: Mapping[str, float]
    latency: Mapping[str, Any] | None
    resamples: int

    def difference(self, score: str, other: str) -> Estimate | None:
        """Student minus another model, paired."""
        mine, theirs = self.scores.get(("student", score)), self.scores.get((other, score))
        return mine - theirs if mine is not None and theirs is not None else None

    @property
    def retention(self) -> Estimate:
        return self.scores["student", "accuracy"] / self.scores["teacher", "accuracy"]

    @property
    def gate(self) -> dict[str, Estimate | float]:
        """Measure → what the run has of it; what could not be measured is not there."""
        names = ("accuracy", "macro_f1", "rare_accuracy", "agreement", "kl", "ece", "ece_refit")
        found: dict[str, Estimate | float | None] = {name: self.scores.get(("student", name)) for name in names}
        found["retention"] = self.retention
        for name, score in (("lift", "accuracy"), ("lift_macro_f1", "macro_f1")):
            above = self.difference(score, "baseline")
            found[name] = None if above is None else above * 100
        found["latency_ms"] = self.latency["p50_ms"] if self.latency else None
        found |= {name: self.metrics.get(f"student/{name}") for name in ("megabytes", "params")}
        return {name: value for name, value in found.items() if value is not None and not math.isnan(_number(value))}


def _number(value: Estimate | float) -> float:
    return value.value if isinstance(value, Estimate) else value


def measure(run: Path, resamples: int = RESAMPLES, seed: int = 0) -> Measured:
    """Raises UserError where the folder is no finished run."""
    metrics = read_metrics(run)
    test, validation = kept.load(run, "test"), kept.load(run, "validation")
    temperatures = {
        name: fitted_temperature(validation.logits[name], validation.targets)
        for name in test.models
        if name in validation.logits
    }
    answers = {name: Answers(test.logits[name], test.targets) for name in test.models}
    refit = {name: Answers(test.logits[name], test.targets, t) for name, t in temperatures.items()}
    wanted = wanted_scores(test, answers) | {(name, "ece_refit"): statistics.ece(a) for name, a in refit.items()}
    estimates = bootstrap({"\0".join(key): statistic for key, statistic in wanted.items()}, resamples, seed)
    scores = {key: estimates["\0".join(key)] for key in wanted}
    file = run / LATENCY
    latency = json.loads(file.read_text()) if file.is_file() else None
    return Measured(test, answers, refit, temperatures, scores, metrics, latency, resamples)


def wanted_scores(test: Predictions, answers: Mapping[str, Answers]) -> dict[tuple[str, str], Statistic]:
    """(model, score) → its statistic on these rows."""
    found: dict[tuple[str, str], Statistic] = {}
    for name, one in answers.items():
        wanted = statistics.scores(one, None if name == "teacher" else answers["teacher"])
        if test.rare.any() and one.truth[:, test.rare].any():
            wanted["rare_accuracy"] = statistics.rare_accuracy(one, test.rare)
        wanted["entropy"] = statistics.mean(one.entropy)
        found |= {(name, score): statistic for score, statistic in wanted.items()}
    return found


def read_metrics(run: Path) -> dict[str, float]:
    """A run's metrics.json. Raises UserError where the folder holds no finished run."""
    file = run / "metrics.json"
    if file.is_file():
        return json.loads(file.read_text())
    if not run.is_dir():
        raise UserError(
            f"{run}: there is no such folder. Give the folder of a run (hydra.run.dir), such as outputs/intent/…."
        )
    runs = sorted(p.parent.name for p in run.glob("*/metrics.json"))
    held = (
        f"it holds the runs {', '.join(runs[:5])}; give one of them"
        if runs
        else "the run has not finished, or this is no run"
    )
    raise UserError(f"{run} has no metrics.json: {held}.")
