"""Texts that are computed together: as cheap as the best of all ways to part them, never more than a batch holds."""

import itertools
import random

import pytest

from mangakd.runtime.grouping import RUN, groups


def cost(lengths: list[int], parts: list[list[int]]) -> int:
    return sum(RUN + len(part) * max(lengths[i] for i in part) for part in parts)


def cheapest(lengths: list[int], most: int) -> int:
    """By trying every way to cut the sorted lengths."""
    order, costs = sorted(range(len(lengths)), key=lengths.__getitem__), []
    for cuts in itertools.product((False, True), repeat=len(order) - 1):
        parts = [[order[0]]]
        for i, cut in zip(order[1:], cuts, strict=True):
            parts.append([i]) if cut else parts[-1].append(i)
        if max(map(len, parts)) <= most:
            costs.append(cost(lengths, parts))
    return min(costs)


@pytest.mark.parametrize("most", [1, 3, 32])
def test_groups_cost_least(most: int) -> None:
    chance = random.Random(most)
    for _ in range(20):
        lengths = [chance.randrange(1, 100) for _ in range(chance.randrange(1, 9))]
        parts = groups(lengths, most)
        assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
        assert max(map(len, parts)) <= most and cost(lengths, parts) == cheapest(lengths, most)


def test_examples() -> None:
    assert groups([], 8) == []
    assert sorted(groups([128, 10, 128, 10], 8)) == [[0, 2], [1, 3]]  # padding 10 to 128 costs more than another run
    assert [sorted(group) for group in groups([10, 12, 11], 8)] == [[0, 1, 2]]
