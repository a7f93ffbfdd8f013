"""Computes a run's numbers from its predictions: every score of every model on the same resamples, and the gate's numbers."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.evaluation import gate, predictions
from mangakd.evaluation.bootstrap import RESAMPLES, Estimate, Statistic, bootstrap
from mangakd.evaluation.judge import Details, Judge, Score
from mangakd.evaluation.predictions import MODELS, Predictions

LATENCY = "latency.json"


@dataclass(frozen=True)
class RunResult:
    """scores: (model, score) → estimate on test. details: the judge's additions. metrics: the run's metrics.json."""

    judge: Judge
    test: Predictions
    details: Details
    scores: Mapping[tuple[str, str], Estimate]
    metrics: Mapping[str, float]
    latency: Mapping[str, Any] | None
    resamples: int

    @property
    def main(self) -> Score:
        return self.judge.scores[self.judge.main]

    def difference(self, score: str, other: str) -> Estimate | None:
        """Student minus another model, paired."""
        mine, theirs = self.scores.get(("student", score)), self.scores.get((other, score))
        return mine - theirs if mine is not None and theirs is not None else None

    def gain(self, score: str, other: str) -> Estimate | None:
        """How much better the student is than another model, paired; in points if the score is a percentage."""
        mine, theirs = self.scores.get(("student", score)), self.scores.get((other, score))
        about = self.judge.scores[score]
        return about.gain(mine, theirs) * about.factor if mine is not None and theirs is not None else None

    @property
    def retention(self) -> Estimate:
        return self.main.retention(*(self.scores[model, self.judge.main] for model in ("student", "teacher")))

    @property
    def gate(self) -> dict[str, Estimate | float]:
        """Measure → the run's number, without measures that the run lacks."""
        numbers: dict[str, Estimate | float | None] = {}
        for name in self.judge.scores:
            numbers[name] = self.scores.get(("student", name))
            numbers[gate.lift(self.judge, name)] = self.gain(name, "baseline")
        numbers["retention"] = self.retention
        numbers["latency_ms"] = self.latency["p50_ms"] if self.latency else None
        numbers |= {name: self.metrics.get(f"student/{name}") for name in ("megabytes", "params")}
        return {name: value for name, value in numbers.items() if value is not None and not math.isnan(_number(value))}


def _number(value: Estimate | float) -> float:
    return value.value if isinstance(value, Estimate) else value


def measure(run: Path, judge: Judge, resamples: int = RESAMPLES, seed: int = 0) -> RunResult:
    """Compute a run's numbers. Raises UserError if the folder is no finished run."""
    metrics = read_metrics(run)
    test, validation = predictions.load(run, "test"), predictions.load(run, "validation")
    details = judge.details(test, validation)
    statistics = statistics_of(judge, test) | dict(details.statistics)
    estimates = bootstrap({"\0".join(key): statistic for key, statistic in statistics.items()}, resamples, seed)
    scores = {key: estimates["\0".join(key)] for key in statistics}
    file = run / LATENCY
    latency = json.loads(file.read_text()) if file.is_file() else None
    return RunResult(judge, test, details, scores, metrics, latency, resamples)


def statistics_of(judge: Judge, split: Predictions) -> dict[tuple[str, str], Statistic]:
    """(model, score) → its statistic on these rows. A reference is no copy of the teacher, and is not compared with it."""
    beside = {model: split.answers.get("teacher") for model in MODELS if model != "teacher"}
    return {
        (model, score): statistic
        for model in split.models
        for score, statistic in judge.statistics(
            split.head, split.answers[model], split.truth, beside.get(model)
        ).items()
    }


def read_metrics(run: Path) -> dict[str, float]:
    """Read a run's metrics.json. Raises UserError if the folder holds no finished run."""
    file = run / "metrics.json"
    if file.is_file():
        return json.loads(file.read_text())
    if not run.is_dir():
        raise UserError(
            f"{run}: there is no such folder. Give the folder of a run (hydra.run.dir), such as outputs/intent/…."
        )
    runs = sorted(p.parent.name for p in run.glob("*/metrics.json"))
    contents = (
        f"it holds the runs {', '.join(runs[:5])}; give one of them"
        if runs
        else "the run has not finished, or this is no run"
    )
    raise UserError(f"{run} has no metrics.json: {contents}.")
