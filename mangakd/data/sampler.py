"""Which rows each process takes in each optimizer step: length-bucketed, and a function of (seed, epoch, step_rows) alone.

Bucketing: the epoch's permutation is cut into pools, each pool is sorted by length and cut into steps, and the steps are
shuffled. On CLINC150 at batch 64 a text is padded to 11.3 tokens, in random order to 21.5 (benchmarks/results).

A step's rows are the same however many processes share them: `accumulate` micro-batches of neighbours in length, each dealt
out over the ranks. So one process and two take the same steps, and a run that is resumed on other devices misses no row.
Each micro-batch carries, by unit of counting, how much of its step it is; LossSet needs nothing else to divide a loss by what
the whole step holds, and no rank has to ask another.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

POOL = 100  # steps sorted together: more pads less, fewer mixes more
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
    """Micro-batches of one epoch from step `start` on, for one process."""

    lengths: np.ndarray
    step_rows: int
    seed: int
    units: Units
    share: Share = Share()
    epoch: int = 0
    start: int = 0

    @property
    def steps(self) -> int:
        return -(-len(self.lengths) // self.step_rows)

    def __len__(self) -> int:
        return self.steps * self.share.accumulate

    def __iter__(self) -> Iterator[MicroBatch]:
        for rows in self.order()[self.start :]:
            yield from self.dealt(rows)

    def order(self) -> list[list[int]]:
        """The rows of each step of the epoch, for all processes together."""
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = rng.permutation(len(self.lengths))
        pool = POOL * self.step_rows
        steps = [step for i in range(0, len(rows), pool) for step in self._bucket(rows[i : i + pool])]
        return [steps[i].tolist() for i in rng.permutation(len(steps))]

    def _bucket(self, rows: np.ndarray) -> list[np.ndarray]:
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        return [rows[i : i + self.step_rows] for i in range(0, len(rows), self.step_rows)]

    def dealt(self, rows: list[int]) -> Iterator[MicroBatch]:
        """This process's micro-batches of one step."""
        share = self.share
        whole = {unit: each[rows].sum() for unit, each in self.units.items()}
        for micro in np.array_split(rows, share.accumulate):
            mine = micro[share.rank :: share.world].tolist()
            here = {unit: each[mine].sum() for unit, each in self.units.items()}
            scale = {unit: float(share.parts * here[unit] / whole[unit]) if whole[unit] else 0.0 for unit in whole}
            yield MicroBatch(mine or rows[:1], scale)
