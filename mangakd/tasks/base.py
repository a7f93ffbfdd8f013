"""`Task`: what a family of problems needs from the rest: targets from label names, and metrics from logits."""

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor

from mangakd.core.spec import Problem
from mangakd.data.rows import Rows


class Task(ABC):
    """name: for folders and cards. family: which of hardware.tasks suits it. problem: the head's kind.

    monitor: the validation metric (higher is better).
    """

    name: str
    family: str
    problem: Problem
    monitor: str

    @abstractmethod
    def targets(self, rows: Rows, labels: tuple[str, ...]) -> np.ndarray:
        """Targets of a split for a head with these label names."""

    @abstractmethod
    def metrics(self, logits: Tensor, targets: Tensor, teacher: Tensor | None = None) -> dict[str, float]:
        """Scores of logits (N, C); with the teacher's logits also agreement and KL."""

    @abstractmethod
    def chance(self, targets: np.ndarray) -> float:
        """`monitor` of a model that has learned nothing, in [0, 1]."""
