"""Randomisation test: could two models' scores have come out so far apart if it made no difference which model was asked?

Each row's two values are swapped or not by a coin, 10,000 times. The p-value is the share of draws in which the two means are at
least as far apart as they are. It answers another question than the interval of bootstrap.py, and needs no more data; both are
usual for rankings.
Source: Fisher 1935; for rankings: Smucker, Allan and Carterette 2007, doi:10.1145/1321440.1321528.
"""

import numpy as np

RESAMPLES = 10_000
_CELLS = 2_000_000  # of signs at a time


def p_value(one: np.ndarray, other: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided, and at least 1 / (resamples + 1), since what was seen is one of the draws. one, other: (N) of the same rows."""
    differences = np.asarray(one, dtype=np.float64) - other
    distance = abs(differences.sum()) * (1 - 1e-9)  # the sums of two orders differ by rounding
    rng, step = np.random.default_rng(seed), max(_CELLS // max(len(differences), 1), 1)
    hits = 0
    for start in range(0, resamples, step):
        signs = 2.0 * rng.integers(0, 2, (min(step, resamples - start), len(differences))) - 1
        hits += int((abs(signs @ differences) >= distance).sum())
    return (hits + 1) / (resamples + 1)
