"""Bootstrap intervals: how far a score would move had other rows been drawn for the test.

Every score here is a function of sums over rows (accuracy and KL of one sum, macro-F1 of counts per class, ECE of sums per
bin). So a resample is a vector of how often each row was drawn, and all scores of all resamples come from one product

    counts (resamples, rows) @ features (rows, columns)

in seconds, where a loop over 10,000 resamples takes many minutes. All scores see the same resamples, so the difference of
two of them is paired: what makes a row hard for both models cancels.
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
    """features: (N, F) of each row. score: (…, F) sums over N rows → (…), from 0 to `most`."""

    features: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]
    most: float = 1.0

    @property
    def value(self) -> float:
        """On the rows as they are."""
        return float(self.score(self.features.sum(axis=0, dtype=np.float64)))


@dataclass(frozen=True)
class Estimate:
    """A score on the rows as they are, and its draws (R) on the resamples. Differences and ratios are paired.

    bounds: what it can be at all.
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
        """The middle 95 % of the draws, moved by their bias where they have one.

        Means have none. ECE's draws lie above its value, as gaps within bins that are due to chance add up and never cancel;
        unmoved, its interval often would not even hold the value. A draw without any row of the kind that is scored has no
        score and is left out.
        """
        held = self.draws[~np.isnan(self.draws)]
        if not len(held) or np.isinf(self.value):
            return np.nan, np.nan
        bias = held.mean() - self.value
        if abs(bias) < 4 * held.std() / np.sqrt(len(held)):  # no more than the luck of the draws
            bias = 0.0
        low, high = np.percentile(held, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]) - bias
        return float(max(low, self.bounds[0])), float(min(high, self.bounds[1]))


def bootstrap(statistics: Mapping[str, Statistic], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Every statistic on the rows and on the same resamples of them."""
    if not statistics:
        return {}
    single = np.concatenate([s.features.astype(np.float32) for s in statistics.values()], axis=1)  # counts are exact
    parts = []
    for counts in draws(len(single), resamples, seed):
        sums = counts.astype(np.float32) @ single
        parts.append([statistic.score(own) for statistic, own in _cut(statistics, sums)])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return {
        name: Estimate(statistic.value, column, (0.0, statistic.most))
        for (name, statistic), column in zip(statistics.items(), columns, strict=True)
    }


def draws(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, (some resamples, rows) at a time."""
    rng = np.random.default_rng(seed)
    step = max(_CELLS // rows, 1)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)


def _cut(statistics: Mapping[str, Statistic], sums: np.ndarray) -> Iterator[tuple[Statistic, np.ndarray]]:
    """Each statistic with its own columns of the sums."""
    start = 0
    for statistic in statistics.values():
        width = statistic.features.shape[1]
        yield statistic, sums[..., start : start + width].astype(np.float64)
        start += width
