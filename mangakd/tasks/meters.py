"""Scores of a validation pass, from sums that are added up batch by batch on the device: no task keeps its answers for them.

A score is a function of sums over rows (evaluation/bootstrap.py). A meter adds up the same sums in torch, and torchmetrics adds
them over ranks; the judge's own function then turns them into the score. Sums are float64: counts are exact on any number of
devices, other sums differ by their order alone (below 1e-9).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from mangakd.core import ranks
from mangakd.evaluation.judge import Arrays

Tensors = Mapping[str, Tensor]
Sides = tuple[Arrays, Arrays, Arrays | None]
Formula = Callable[[np.ndarray, int], np.ndarray]
"""(F) sums over rows, number of rows → the score."""


class Meter(Metric):
    """One score. width: F, the number of its sums. together: whether other ranks hold a part of the rows."""

    full_state_update = False
    sums: Tensor
    rows: Tensor

    def __init__(self, width: int, formula: Formula, together: bool) -> None:
        super().__init__(sync_on_compute=together)
        self.formula = formula
        self.add_state("sums", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, sums: Tensor, rows: int) -> None:
        self.sums += sums
        self.rows += rows

    def compute(self) -> float:
        return float(self.formula(self.sums.cpu().numpy(), int(self.rows)))


class Meters:
    """All scores, each a function of sums.

    meters: score → meter. sums: (answers, truth, the teacher's answers) of a batch → score → (F) sums.
    """

    def __init__(
        self, meters: Mapping[str, Meter], sums: Callable[[Tensors, Tensors, Tensors | None], Mapping[str, Tensor]]
    ) -> None:
        self._meters, self._sums = meters, sums

    def update(self, answers: Tensors, truth: Tensors, teacher: Tensors | None = None) -> None:
        """answers, teacher: as `Task.ask` gives them, in any precision. truth: the batch's columns."""
        first = next(iter(answers.values()))
        device = torch.device("cpu") if first.device.type == "mps" else first.device  # MPS has no float64
        sides = [side and {name: each.to(device) for name, each in side.items()} for side in (answers, truth, teacher)]
        for name, sums in self._sums(*sides).items():  # type: ignore[arg-type]
            meter = self._meters[name]
            if meter.sums.device != device:
                meter.to(device)
            meter.update(sums, len(first))

    def values(self) -> dict[str, float]:
        """Score → value; a score that is not defined on these rows, or for these answers, is left out."""
        values = {name: meter.compute() for name, meter in self._meters.items() if meter.update_called}
        return {name: value for name, value in values.items() if not math.isnan(value)}


class RowMeters(Meters):
    """Scores that no sums give, such as those that compare each row with all others: the answers of all rows are kept.

    values: (answers, truth, the teacher's answers) of all rows of the split → score → value. together: whether other ranks hold
    a part of the rows.
    """

    def __init__(self, values: Callable[[Arrays, Arrays, Arrays | None], dict[str, float]], together: bool) -> None:
        self._of, self._together = values, together
        self._parts: list[Sides] = []

    def update(self, answers: Tensors, truth: Tensors, teacher: Tensors | None = None) -> None:
        own, given = ({name: _array(each) for name, each in side.items()} for side in (answers, truth))
        self._parts.append((own, given, None if teacher is None else {k: _array(v) for k, v in teacher.items()}))

    def values(self) -> dict[str, float]:
        if not self._together:
            return self._score(self._parts)
        parts = [part for rank in ranks.collect(self._parts) for part in rank]
        return ranks.share(self._score(parts) if ranks.is_first() else {})

    def _score(self, parts: Sequence[Sides]) -> dict[str, float]:
        answers, truth, teacher = zip(*parts, strict=True)
        return self._of(_stacked(answers), _stacked(truth), None if teacher[0] is None else _stacked(teacher))


def _array(tensor: Tensor) -> np.ndarray:
    """NumPy has no bfloat16."""
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def _stacked(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
