"""An optimizer step is the same rows, and the same gradient, however many ranks and micro-batches share it."""

import numpy as np
import pytest

from mangakd.data.sampler import BucketSampler, MicroBatch, Share
from mangakd.data.steps import RowSteps, StepSize, TokenSteps

ROWS, STEP = 53, RowSteps(8)  # the last step has 5 rows
LENGTHS = np.random.default_rng(0).integers(3, 30, ROWS)
UNITS = {
    "rows": np.ones(ROWS, np.int64), "tokens": LENGTHS, "cells": LENGTHS**2, "labels": (np.arange(ROWS) % 3 > 0).astype(int)
}  # fmt: skip
SPREADS = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (4, 2)]


def sampler(step: StepSize = STEP, **changes: object) -> BucketSampler:
    return BucketSampler(LENGTHS, step, seed=1, units=UNITS, **changes)  # type: ignore[arg-type]


def parts(world: int, accumulate: int, step: StepSize = STEP) -> list[list[MicroBatch]]:
    """Step → all micro-batches of all ranks."""
    ranks = [list(sampler(step, share=Share(rank, world, accumulate))) for rank in range(world)]
    count = sampler(step).steps * accumulate
    assert all(len(each) == count for each in ranks), "ranks must take part in every exchange"
    return [[each[i] for each in ranks for i in range(n, n + accumulate)] for n in range(0, count, accumulate)]


@pytest.mark.parametrize("step", [STEP, TokenSteps(40, 3)], ids=str)
@pytest.mark.parametrize(("world", "accumulate"), SPREADS)
def test_every_row_of_a_step_is_in_one_part(world: int, accumulate: int, step: StepSize) -> None:
    for whole, micro in zip(sampler(step).order(), parts(world, accumulate, step), strict=True):
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


# --- batches of tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "accumulate"), SPREADS)
def test_no_batch_holds_more_tokens_than_its_budget(world: int, accumulate: int) -> None:
    micro = [part for whole in parts(world, accumulate, TokenSteps(60, world * accumulate)) for part in whole]
    sizes = [len(part.rows) * LENGTHS[part.rows].max() for part in micro if any(part.scale.values())]
    assert max(sizes) <= 60 and len({len(part.rows) for part in micro}) > 2


def test_steps_are_cut_where_the_next_row_does_not_fit() -> None:
    """Two batches of 12 tokens hold 2 · 4 rows of 3 tokens, or 2 · 2 of 5. A row of 13 tokens is a batch of its own."""
    lengths = np.array([5, 3, 3, 13, 3, 5, 3, 3, 5, 13, 3, 5, 3, 3, 3, 13])
    cuts = [lengths[rows].tolist() for rows in TokenSteps(12, 2).cut(lengths, np.random.default_rng(0))]
    assert cuts == [[3] * 8, [3, 5, 5, 5], [5, 13], [13, 13]]
    assert TokenSteps(12, 2).count(lengths) == 4


def test_batches_of_tokens_are_full_and_as_many_in_every_epoch() -> None:
    lengths = np.minimum(np.random.default_rng(0).geometric(0.01, 5000) + 8, 512)
    step = TokenSteps(4096, 2)
    epochs = [BucketSampler(lengths, step, 0, {}, epoch=epoch).order() for epoch in range(3)]
    for order in epochs:
        assert len(order) == step.count(lengths) and sorted(row for rows in order for row in rows) == list(range(5000))
    padded = sum(len(rows) * lengths[rows].max() for rows in epochs[0])
    assert lengths.sum() > 0.95 * padded, "rows of a step are alike in length"
    assert padded > 0.95 * len(epochs[0]) * 2 * 4096, "batches are full"
    company = [{frozenset(rows) for rows in order} for order in epochs]
    assert not company[0] & company[1], "each epoch mixes rows of similar length anew"


def test_sources_and_targets_of_a_step_are_alike() -> None:
    """32 source lengths, 10 tokens apart, each with targets of 1 to 32 tokens. A group of 64 rows has two source lengths, so each
    of its two steps of 32 rows has 16 target lengths. By the sum of both, targets of more lengths share a step."""
    rows = np.random.default_rng(0).permutation(1024)
    sources, targets = (rows // 32) * 10 + 20, rows % 32 + 1
    widths = {}
    for name, own in (("apart", targets), ("together", None)):
        steps = BucketSampler(sources + targets, RowSteps(32), 1, {}, targets=own).order()
        assert sorted(i for step in steps for i in step) == [*range(1024)] and len(steps) == 32
        widths[name] = [max(int(np.ptp(lengths[step])) for step in steps) for lengths in (sources, targets)]
    assert widths["apart"] == [10, 15] and widths["together"][1] > 15
