"""Some of many, from end to end."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """`most` of them from the first to the last, evenly spaced; all where there are fewer.

    Not the first ones, because files are often sorted by label: the first 300 texts of CLINC150 are 3 of its 150 intents, and
    ranges calibrated on them changed 1.7 % of a student's answers, those of all intents 0.3 %.
    """
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]
