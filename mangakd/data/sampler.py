"""Which rows each process takes in each optimizer step: a function of (seed, epoch, size of a step) alone.

Rows of similar length share a step (data/steps.py), and the steps are shuffled.

A step's rows are the same however many processes share them: `accumulate` micro-batches of neighbours in length, each dealt
out over the ranks. So one process and two take the same steps, and a run that is resumed on other devices misses no row.
Each micro-batch carries, by unit of counting, how much of its step it is; LossSet needs nothing else to divide a loss by what
the whole step holds, and no rank has to ask another.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mangakd.data.steps import StepSize

Units = Mapping[str, np.ndarray]
"""Unit of counting → how many of it each row holds, (N)."""


@dataclass(frozen=True)
class Share:
    """The part of every optimizer step that one process takes: `rank` of `world`, in `accumulate` micro-batches."""

    rank: int = 0
    world: int = 1
    accumulate: int = 1

    @property
    def parts(self) -> int:
        return self.world * self.accumulate


class MicroBatch(NamedTuple):
    """rows of the split. scale: unit → world · accumulate · (units here / units in the step).

    The factors undo DDP's mean over ranks and Lightning's over micro-batches. A rank for which a short last step leaves
    no row takes one of its rows with a scale of 0: every rank must take part in every exchange of gradients.
    """

    rows: list[int]
    scale: dict[str, float]


@dataclass
class BucketSampler:
    """Micro-batches of one epoch from step `start` on, for one process. targets: as of `RowSteps.cut`."""

    lengths: np.ndarray
    step: StepSize
    seed: int
    units: Units
    share: Share = Share()
    epoch: int = 0
    start: int = 0
    targets: np.ndarray | None = None

    @cached_property
    def steps(self) -> int:
        """Of an epoch."""
        return self.step.count(self.lengths)

    def __len__(self) -> int:
        return self.steps * self.share.accumulate

    def __iter__(self) -> Iterator[MicroBatch]:
        for rows in self.order()[self.start :]:
            yield from self.dealt(rows)

    def order(self) -> list[list[int]]:
        """The rows of each step of the epoch, for all processes together."""
        rng = np.random.default_rng([self.seed, self.epoch])
        steps = self.step.cut(self.lengths, rng, self.targets)
        return [steps[i].tolist() for i in rng.permutation(len(steps))]

    def dealt(self, rows: list[int]) -> Iterator[MicroBatch]:
        """This process's micro-batches of one step."""
        share = self.share
        whole = {unit: each[rows].sum() for unit, each in self.units.items()}
        for micro in np.array_split(rows, share.accumulate):
            mine = micro[share.rank :: share.world].tolist()
            here = {unit: each[mine].sum() for unit, each in self.units.items()}
            scale = {unit: float(share.parts * here[unit] / whole[unit]) if whole[unit] else 0.0 for unit in whole}
            yield MicroBatch(mine or rows[:1], scale)
