"""Bootstrap intervals: how far a score would move if the test had other rows.

Nearly every score is a function of sums over rows (accuracy and KL of one sum, macro-F1 of counts per class, ECE of sums per
bin). Those that are not (`Recount`) are computed from the counts themselves. A resample is a vector of counts: how often each
row was drawn. So one product gives all scores of all resamples

    counts (resamples, rows) @ features (rows, columns)

in seconds. A loop over 10,000 resamples takes many minutes. All scores use the same resamples, so a difference of two scores
is paired: the difficulty of a row cancels.
Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 10 (bias) and 13 (percentile interval).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

RESAMPLES, LEVEL = 10_000, 0.95
_CELLS = 2_000_000  # of `counts` at a time, so that memory does not grow with the number of resamples


@dataclass(frozen=True)
class Statistic:
    """features: (N, F), the numbers of each row. score: (…, F) sums over N rows → (…), from `least` to `most`."""

    features: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]
    most: float = 1.0
    least: float = 0.0

    @property
    def value(self) -> float:
        """The score on the rows themselves, without resampling."""
        return float(self.score(self.features.sum(axis=0, dtype=np.float64)))

    def resample(self, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """(R) scores of resamples. counts: (R, N), how often each row is drawn. sums: (R, F), the resamples' sums."""
        return self.score(sums)


@dataclass(frozen=True)
class Recount(Statistic):
    """A score that is no function of sums over rows, such as a rank correlation. features: (N, 0).

    score: counts (R, N), how often each row is drawn → (R).
    """

    @classmethod
    def of(
        cls, rows: int, score: Callable[[np.ndarray], np.ndarray], most: float = 1.0, least: float = 0.0
    ) -> "Recount":
        return cls(np.zeros((rows, 0)), score, most, least)

    @property
    def value(self) -> float:
        return float(self.score(np.ones((1, len(self.features))))[0])

    def resample(self, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return self.score(counts)


@dataclass(frozen=True)
class Estimate:
    """A score. value: on the rows themselves. draws: (R) on the resamples. bounds: the smallest and the largest possible value.

    Differences and ratios of estimates are paired.
    """

    value: float
    draws: np.ndarray
    bounds: tuple[float, float] = (-np.inf, np.inf)

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, self.draws - other.draws)

    def __mul__(self, factor: float) -> "Estimate":
        low, high = self.bounds
        return Estimate(self.value * factor, self.draws * factor, (low * factor, high * factor))

    def __truediv__(self, other: "Estimate") -> "Estimate":
        with np.errstate(divide="ignore", invalid="ignore"):
            value, draws = np.divide(self.value, other.value), self.draws / other.draws
        return Estimate(float(value), np.where(np.isfinite(draws), draws, np.nan), (0.0, np.inf))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The middle 95 % of the draws, corrected for their bias.

        The draws of a mean have no bias. The draws of ECE lie above its value, because the gaps of the bins that are due to
        chance add up and never cancel. Without the correction the interval of ECE would often miss its value. A NaN draw is
        ignored: the resample has no row that the score is about.
        """
        valid = self.draws[~np.isnan(self.draws)]
        if not len(valid) or np.isinf(self.value):
            return np.nan, np.nan
        bias = valid.mean() - self.value
        if abs(bias) < 4 * valid.std() / np.sqrt(len(valid)):  # within four standard errors: chance explains the bias
            bias = 0.0
        low, high = np.percentile(valid, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]) - bias
        return float(max(low, self.bounds[0])), float(min(high, self.bounds[1]))


def bootstrap(statistics: Mapping[str, Statistic], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Estimate every statistic on the rows and on resamples of the rows. All statistics share the resamples."""
    if not statistics:
        return {}
    single = np.concatenate([s.features.astype(np.float32) for s in statistics.values()], axis=1)  # counts are exact
    parts = []
    for counts in draws(len(single), resamples, seed):
        sums = counts.astype(np.float32) @ single
        parts.append([statistic.resample(counts, own) for statistic, own in _cut(statistics, sums)])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return {
        name: Estimate(statistic.value, column, (statistic.least, statistic.most))
        for (name, statistic), column in zip(statistics.items(), columns, strict=True)
    }


def draws(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield counts (resamples of a chunk, rows): how often each row is drawn."""
    rng = np.random.default_rng(seed)
    step = max(_CELLS // rows, 1)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        indices = rng.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(indices.ravel(), minlength=count * rows).reshape(count, rows)


def _cut(statistics: Mapping[str, Statistic], sums: np.ndarray) -> Iterator[tuple[Statistic, np.ndarray]]:
    """Yield each statistic with its columns of the sums."""
    start = 0
    for statistic in statistics.values():
        width = statistic.features.shape[1]
        yield statistic, sums[..., start : start + width].astype(np.float64)
        start += width
