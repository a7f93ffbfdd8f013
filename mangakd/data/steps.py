"""What an optimizer step holds: a number of rows, or batches of at most so many tokens. Rows of a step are alike in length.

Bucketing by rows: the epoch's permutation is cut into pools, each pool is sorted by length and cut into steps. On CLINC150 at
batch 64 a text is padded to 11.3 tokens, in random order to 21.5 (benchmarks/results).

An encoder–decoder pads sources and targets apart. Its pools are sorted by the source, groups of about GROUP rows of a pool are
sorted by the target, and then cut into steps. On QReCC and CAsT at batch 16 this computes 1.09 times the tokens that there are,
sorted by the sum of both lengths 1.14, in random order 2.07.

Bucketing by tokens: all rows of the epoch are sorted by length and cut where the next row would not fit. The number of steps must
be the same in every epoch, because the learning rate's schedule and Lightning read it before training. Pools would change it with
the permutation. So lengths are rounded up by at most a sixteenth, rows of one rounded length come in random order, and the cuts
depend on the rounded lengths alone.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

POOL = 100  # steps sorted together: more pads less, fewer mixes more
GROUP = 64  # rows of similar sources that are sorted by their targets
FINENESS = 16  # a length is rounded up by less than its 16th part


@dataclass(frozen=True)
class RowSteps:
    """Steps of `rows` rows, on all devices together."""

    rows: int

    def __str__(self) -> str:
        return f"{self.rows} rows"

    @property
    def record(self) -> dict[str, int]:
        """For checkpoints; `step_of` reads it."""
        return {"step_rows": self.rows}

    def most(self, length: int) -> int:
        """The rows of a step whose longest row has `length` tokens."""
        return self.rows

    def count(self, lengths: np.ndarray) -> int:
        """The steps of an epoch. lengths: tokens of each row, (N)."""
        return -(-len(lengths) // self.rows)

    def cut(self, lengths: np.ndarray, rng: np.random.Generator, targets: np.ndarray | None = None) -> list[np.ndarray]:
        """The rows of each step of an epoch; the steps themselves are in the order of their pools and lengths.

        targets (N): how many of a row's tokens a decoder reads, apart from those of the encoder; None without an encoder.
        """
        rows = rng.permutation(len(lengths))
        sources = lengths if targets is None else lengths - targets
        groups = [
            group
            for pool in _parts(rows, POOL * self.rows)
            for group in _parts(_sorted(pool, sources), max(GROUP // self.rows, 1) * self.rows)
        ]
        ordered = groups if targets is None else [_sorted(group, targets) for group in groups]
        return [step for group in ordered for step in _parts(group, self.rows)]


@dataclass(frozen=True)
class TokenSteps:
    """Steps of `batches` batches, on all devices together. A batch holds rows × its longest row ≤ `tokens`.

    A row that is longer than `tokens` is a batch of its own.
    """

    tokens: int
    batches: int

    def __str__(self) -> str:
        batches = f"{self.batches} batches" if self.batches > 1 else "a batch"
        return f"{batches} of at most {self.tokens:,} tokens"

    @property
    def record(self) -> dict[str, int]:
        return {"step_tokens": self.tokens, "step_batches": self.batches}

    def most(self, length: int) -> int:
        return self.batches * max(self.tokens // length, 1)

    def count(self, lengths: np.ndarray) -> int:
        return len(self._starts(np.sort(_rounded(lengths))))

    def cut(self, lengths: np.ndarray, rng: np.random.Generator, targets: np.ndarray | None = None) -> list[np.ndarray]:
        """By the sum of all lengths, which bounds a batch."""
        rounded, rows = _rounded(lengths), rng.permutation(len(lengths))
        rows = rows[np.argsort(rounded[rows], kind="stable")]
        return np.split(rows, self._starts(rounded[rows])[1:])

    def _starts(self, lengths: np.ndarray) -> list[int]:
        """The first place of each step. lengths: sorted."""
        starts, place = [], 0
        while place < len(lengths):
            starts.append(place)
            place = self._end(lengths, place)
        return starts

    def _end(self, lengths: np.ndarray, start: int) -> int:
        """The place after the step that begins at `start`: each further row makes room for fewer, as it is as long or longer."""
        places = range(start, len(lengths))
        return start + bisect_right(places, 0, key=lambda place: place + 1 - start - self.most(int(lengths[place])))


def _sorted(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return rows[np.argsort(lengths[rows], kind="stable")]


def _parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


StepSize = RowSteps | TokenSteps


def step_of(record: Mapping[str, Any]) -> StepSize:
    """The steps of a checkpoint's run."""
    if "step_tokens" in record:
        return TokenSteps(record["step_tokens"], record["step_batches"])
    return RowSteps(record["step_rows"])


def _rounded(lengths: np.ndarray) -> np.ndarray:
    """Lengths of at least 1, rounded up to 16 to 31 multiples of a power of two; none above the longest."""
    lengths = np.maximum(lengths, 1)
    powers = np.floor(np.log2(lengths)).astype(np.int64)
    unit = np.maximum(2**powers // FINENESS, 1)
    return np.minimum(-(-lengths // unit) * unit, lengths.max(initial=1))
