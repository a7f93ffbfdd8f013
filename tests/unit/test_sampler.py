"""An optimizer step is the same rows, and the same gradient, however many ranks and micro-batches share it."""

import numpy as np
import pytest

from mangakd.data.sampler import BucketSampler, MicroBatch, Share

ROWS, STEP = 53, 8  # the last step has 5 rows
LENGTHS = np.random.default_rng(0).integers(3, 30, ROWS)
UNITS = {
    "rows": np.ones(ROWS, np.int64), "tokens": LENGTHS, "cells": LENGTHS**2, "labels": (np.arange(ROWS) % 3 > 0).astype(int)
}  # fmt: skip
SPREADS = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (4, 2)]


def sampler(**changes: object) -> BucketSampler:
    return BucketSampler(LENGTHS, STEP, seed=1, units=UNITS, **changes)  # type: ignore[arg-type]


def parts(world: int, accumulate: int) -> list[list[MicroBatch]]:
    """Step → all micro-batches of all ranks."""
    ranks = [list(sampler(share=Share(rank, world, accumulate))) for rank in range(world)]
    assert all(len(each) == 7 * accumulate for each in ranks), "ranks must take part in every exchange"
    return [[each[i] for each in ranks for i in range(n, n + accumulate)] for n in range(0, 7 * accumulate, accumulate)]


@pytest.mark.parametrize(("world", "accumulate"), SPREADS)
def test_every_row_of_a_step_is_in_one_part(world: int, accumulate: int) -> None:
    for whole, micro in zip(sampler().order(), parts(world, accumulate), strict=True):
        taken = [row for part in micro if any(part.scale.values()) for row in part.rows]
        assert sorted(taken) == sorted(whole)


@pytest.mark.parametrize(("world", "accumulate"), SPREADS)
def test_the_mean_over_parts_is_the_mean_over_the_step(world: int, accumulate: int) -> None:
    """Each part's own mean times its scale, averaged over ranks and micro-batches: what DDP and Lightning do."""
    value = np.random.default_rng(2).normal(size=ROWS)
    for whole, micro in zip(sampler().order(), parts(world, accumulate), strict=True):
        for unit, each in UNITS.items():
            scaled = [
                (value * each)[part.rows].sum() / max(each[part.rows].sum(), 1) * part.scale[unit] for part in micro
            ]
            expected = (value * each)[whole].sum() / max(each[whole].sum(), 1)
            np.testing.assert_allclose(np.mean(scaled), expected, rtol=1e-12)


def test_one_part_is_scaled_by_exactly_one() -> None:
    assert all(part.scale == dict.fromkeys(UNITS, 1.0) for part in sampler())


def test_a_rank_without_a_row_takes_one_that_counts_nothing() -> None:
    spread = [part for step in parts(4, 2) for part in step]
    idle = [part for part in spread if not any(part.scale.values())]
    assert len(idle) == 3, "5 rows over 8 parts"
    assert all(len(part.rows) == 1 for part in idle)


def test_a_step_without_labels_scales_by_nothing() -> None:
    none = BucketSampler(LENGTHS, STEP, 1, {"labels": np.zeros(ROWS, int)}, Share(0, 2))
    assert all(part.scale == {"labels": 0.0} for part in none)


def test_the_order_of_rows_knows_nothing_of_the_share() -> None:
    assert sampler().order() == sampler(share=Share(1, 2, 2)).order()
    assert [p.rows for p in sampler(start=3)] == sampler().order()[3:]
