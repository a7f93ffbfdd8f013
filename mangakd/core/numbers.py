"""The largest of measured numbers, in which a NaN is not lost."""

from collections.abc import Iterable

import numpy as np


def largest(values: Iterable[float]) -> float:
    """The largest value, NaN where one is NaN. Python's max keeps what it saw before a NaN: max(0.0, nan) is 0.0."""
    return float(np.max(list(values)))


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """max |one − other|, and infinity where either array holds a NaN or an infinity.

    A NaN must not be compared as a number: `max(x, nan)` is x, and two models that both answer NaN would look alike.
    """
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0))
