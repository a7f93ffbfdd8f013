"""Weights that change during training, as pure functions of progress (0 at the start, 1 at the end).

Pure functions can be resumed: the value depends on the progress only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = float | Callable[[float], float]


@dataclass(frozen=True)
class Linear:
    """start + (end − start) · progress."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)


@dataclass(frozen=True)
class Cosine:
    """end + (start − end) · (1 + cos(π · progress)) / 2."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        ramp = (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
        return self.end + (self.start - self.end) * ramp


def at(schedule: Schedule, progress: float) -> float:
    """The value of a number or a schedule at `progress`."""
    return float(schedule(progress)) if callable(schedule) else float(schedule)
