"""`spread` samples a sequence evenly."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """`most` items from the whole sequence, evenly spaced; all items if there are fewer.

    Files are often sorted by label, so the first items are a bad sample. The first 300 texts of CLINC150 have 3 of its 150
    intents; ranges calibrated on these texts changed 1.7 % of a student's answers, ranges calibrated on all intents 0.3 %.
    """
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]
