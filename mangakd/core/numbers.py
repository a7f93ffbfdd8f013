"""Folds over measured numbers in which a NaN is not lost."""

from collections.abc import Iterable

import numpy as np


def largest(values: Iterable[float]) -> float:
    """The largest value, NaN where one is NaN. Python's max keeps what it saw before a NaN: max(0.0, nan) is 0.0."""
    return float(np.max(list(values)))
