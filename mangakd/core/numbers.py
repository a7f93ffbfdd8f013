"""Maxima that do not lose a NaN."""

from collections.abc import Iterable

import numpy as np


def largest(values: Iterable[float]) -> float:
    """The largest value; NaN if any value is NaN. Python's max may ignore a NaN: max(0.0, nan) is 0.0."""
    return float(np.max(list(values)))


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """max |one − other|; infinity if either array holds a NaN or an infinity.

    A comparison would ignore a NaN: `max(x, nan)` is x, and two models that both answer NaN would look equal.
    """
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0))
