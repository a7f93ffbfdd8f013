"""The runs of a sweep, read from disk and grouped into points. Runs that differ only in their seed are one point.

A point's score is the validation score by which the runs chose their checkpoint (task.monitor). Validation alone decides which
point is best. Test scores are shown for the best point only.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.invocation import command_words
from mangakd.core.run_folder import COMMAND, ERROR, METRICS, metrics_of
from mangakd.evaluation import predictions
from mangakd.evaluation.bootstrap import Estimate, bootstrap
from mangakd.evaluation.judge import Judge, Score
from mangakd.evaluation.predictions import Predictions

SEED = "seed"
# Student's t, 97.5 %, for 1 … 9 degrees of freedom; beyond them its expansion around the normal quantile (error < 1e-3).
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class SweepRun:
    """One folder. settings: the command's overrides, key → value. metrics: empty unless finished. error: why the run failed."""

    folder: Path
    settings: Mapping[str, str]
    metrics: Mapping[str, float]
    error: str = ""

    @property
    def finished(self) -> bool:
        return bool(self.metrics)

    @property
    def score(self) -> tuple[str, float]:
        """Name and value of the validation score."""
        name = next(name for name in self.metrics if name.startswith("val/"))
        return name.removeprefix("val/"), self.metrics[name]

    @cached_property
    def validation(self) -> Predictions | None:
        return self._predictions("validation")

    @cached_property
    def test(self) -> Predictions | None:
        return self._predictions("test")

    def _predictions(self, split: str) -> Predictions | None:
        return predictions.load(self.folder, split) if predictions.file_of(self.folder, split).is_file() else None


@dataclass(frozen=True)
class Spread:
    """One number over runs that differ in their seeds. values: (n), one value a run."""

    values: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def half(self) -> float:
        """Half of the 95 % interval of the mean over seeds (Student's t): t · s / √n; NaN for a single seed."""
        n = len(self.values)
        return quantile(n - 1) * float(self.values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return self.mean - self.half, self.mean + self.half


@dataclass(frozen=True)
class Point:
    """values: of the sweep's keys, in their order. runs: the finished runs, one for each seed."""

    values: tuple[str, ...]
    runs: Sequence[SweepRun]

    @cached_property
    def scores(self) -> np.ndarray:
        return np.array([run.score[1] for run in self.runs])

    @property
    def mean(self) -> float:
        return Spread(self.scores).mean

    @property
    def half(self) -> float:
        return Spread(self.scores).half

    def mean_of(self, metric: str) -> float:
        return float(np.mean([run.metrics.get(metric, math.nan) for run in self.runs]))


@dataclass(frozen=True)
class SweepResult:
    """keys: the keys that the sweep varies, without the seed. points: best first. runs: all, finished or not.

    score: the name of the validation score by which the runs chose their checkpoint.
    """

    folder: Path
    judge: Judge
    score: str
    keys: tuple[str, ...]
    points: Sequence[Point]
    runs: Sequence[SweepRun]

    @property
    def about(self) -> Score:
        return self.judge.score(self.score)

    @property
    def repeats(self) -> bool:
        """Whether the sweep is one run under several seeds."""
        return not self.keys and len(self.points[0].runs) > 1

    def winning_command(self) -> str:
        """The command of the best point, without a seed."""
        settings = self.points[0].runs[0].settings
        overrides = [f"{key}={value}" for key, value in settings.items() if key != SEED]
        return shlex.join([*command_words("train"), *overrides])


def quantile(freedom: int) -> float:
    """Student's t, 97.5 %. Source: Abramowitz & Stegun 1964, 26.7.5."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = 1.959964
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def is_sweep(folder: Path) -> bool:
    return not (folder / METRICS).is_file() and bool(_folders(folder))


def _folders(folder: Path) -> list[Path]:
    folders = {file.parent for name in (COMMAND, ERROR) for file in folder.glob(f"*/{name}")}
    return sorted(folders, key=lambda p: (not p.name.isdigit(), int(p.name) if p.name.isdigit() else 0, p.name))


def read(folder: Path) -> list[SweepRun]:
    """Every run that has started."""
    return [_read(run) for run in _folders(folder)]


def _read(folder: Path) -> SweepRun:
    command, error = folder / COMMAND, folder / ERROR
    words = shlex.split(command.read_text()) if command.is_file() else []
    words = (
        words[4:] if words[1:2] == ["-m"] else words[2:]
    )  # after `python -m mangakd train`, `mangakd train`, `python train.py`
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    return SweepRun(folder, settings, metrics_of(folder), error.read_text().strip() if error.is_file() else "")


def result(folder: Path, judge: Judge) -> SweepResult:
    """Raises UserError if no run has finished, or if the runs have different monitors."""
    runs = read(folder)
    complete = [run for run in runs if run.finished]
    if not complete:
        raise UserError(
            f"{folder}: none of its {len(runs)} runs has finished; look into their error.txt and logs/run.log."
        )
    score = _common_score(folder, complete)
    every = list(dict.fromkeys(key for run in complete for key in run.settings))
    keys = tuple(key for key in every if key != SEED and len({run.settings.get(key) for run in complete}) > 1)
    points: dict[tuple[str, ...], list[SweepRun]] = {}
    for run in complete:
        points.setdefault(tuple(run.settings.get(key, "") for key in keys), []).append(run)
    rank = judge.score(score).rank
    best_first = sorted((Point(values, own) for values, own in points.items()), key=lambda point: rank(point.mean))
    return SweepResult(folder, judge, score, keys, best_first, runs)


def _common_score(folder: Path, runs: Sequence[SweepRun]) -> str:
    first = runs[0].score[0]
    for run in runs:
        if run.score[0] != first:
            raise UserError(
                f"{folder}: run {runs[0].folder.name} has task.monitor={first}, run {run.folder.name} has {run.score[0]}. A "
                "sweep ranks its runs by one score: give task.monitor one value."
            )
    return first


def behind(sweep: SweepResult, resamples: int, seed: int) -> list[Estimate] | None:
    """Each point's validation score minus the best point's, paired over rows. A point's score is the mean over its seeds.

    The difference of a percentage is in points. None if a run has no predictions, or if the runs have different validation rows.
    """
    runs = [run for point in sweep.points for run in point.runs]
    splits = [run.validation for run in runs if run.validation is not None]
    if len(splits) < len(runs) or not all(splits[0].same_rows(split) for split in splits):
        return None
    statistics = {
        str(run.folder): sweep.judge.statistics(split.head, split.answers["student"], split.truth)[sweep.score]
        for run, split in zip(runs, splits, strict=True)
    }
    estimates = iter(bootstrap(statistics, resamples, seed).values())
    means = [_mean([next(estimates) for _ in point.runs]) for point in sweep.points]
    return [(mean - means[0]) * sweep.about.factor for mean in means]


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates that share their resamples."""
    return Estimate(float(np.mean([e.value for e in estimates])), np.mean([e.draws for e in estimates], axis=0))
