"""How far two models' answers are apart."""

import numpy as np


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """max |one − other|, and infinity where either array holds a NaN or an infinity.

    A NaN must not be compared as a number: `max(x, nan)` is x, and two models that both answer NaN would look alike.
    """
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0))
