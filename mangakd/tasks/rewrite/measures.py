"""Statistics of scores. Those of texts are means over the rows that have them. Imports no torch."""

from dataclasses import replace

import numpy as np

from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays

COPY, HUMAN = "copy", "human"
"""Systems without a model."""
GAIN = "recall_gain"


def of_text(values: np.ndarray, rows: np.ndarray) -> Statistic:
    """The mean of values (N), NaN where they have no meaning, over some rows (N) bool."""
    known = rows & ~np.isnan(values)
    return Statistic(np.stack([np.where(known, values, 0.0), known], 1).astype(np.float64), mean, most=1.0)


def by_source(statistic: Statistic, truth: Arrays) -> Statistic:
    """The same score with a row for each of M sources, so that resamples draw sources: expansions of a source are alike.

    truth: holds source_row (N), the source of each row; without it (runs of earlier versions) each row is a unit.
    """
    if "source_row" not in truth:
        return statistic
    _, places = np.unique(truth["source_row"], return_inverse=True)
    sums = np.zeros((places.max(initial=-1) + 1, statistic.features.shape[1]))
    np.add.at(sums, places, statistic.features)
    return replace(statistic, features=sums)


def mean(sums: np.ndarray) -> np.ndarray:
    """sums: (…, 2), of values and of rows. NaN for a resample without a row that the score is about."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: np.ndarray = sums[..., 0] / sums[..., 1]
        return result


def gain(own: Arrays, teacher: Arrays, copy: Arrays, rows: np.ndarray, score: str = "recall@10") -> Statistic | None:
    """The share of the teacher's gain over copying; None where one of them has no such score, or no row has all three."""
    sides = [each.get(score) for each in (own, teacher, copy)]
    if any(side is None for side in sides):
        return None
    values = np.stack(sides, 1)  # type: ignore[arg-type]
    known = rows & ~np.isnan(values).any(1)
    if not known.any():
        return None
    gains = np.where(known[:, None], values[:, :2] - values[:, 2:], 0.0)
    return Statistic(gains.astype(np.float64), share, most=np.inf, least=-np.inf)


def share(sums: np.ndarray) -> np.ndarray:
    """sums: (…, 2), gains of a student and of its teacher. NaN where the teacher gains nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)
