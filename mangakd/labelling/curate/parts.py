"""Splits rows into train, val and test, so that no prompt and no conversation is on two sides."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from mangakd.core.errors import UserError
from mangakd.data.split import draw

TRAIN, HELD_OUT = "train", ("test", "val")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Name of a file → name of the split in data sets of Hugging Face."""


def check_shares(shares: Mapping[str, float]) -> None:
    """Raises UserError for shares that are no split."""
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise UserError(f"split.{name}={share} must be a number from 0 to 1: the share of the rows.")
    if abs(sum(shares.values()) - 1) > 1e-6 or not shares[TRAIN]:
        words = ", ".join(f"split.{name}={share}" for name, share in shares.items())
        raise UserError(f"{words}: the shares must add up to 1, with a share above 0 for train.")


def parts_of(
    keys: Sequence[tuple[str, ...]], classes: Sequence[tuple[str, ...]], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Part → positions of its rows, in order. keys: of each row; rows that share one stay together, also through other rows.

    classes: labels of each row; the last row of a label stays in train. A group that is larger than a part goes to train.
    Raises UserError where a part gets no row.
    """
    groups = together(keys)
    order = list(range(len(keys)))
    random.Random(seed).shuffle(order)
    left = Counter(label for labels in classes for label in labels)
    used = set[int]()
    parts: dict[str, list[int]] = {}
    for name in HELD_OUT:
        if not shares[name]:
            continue
        size = round(shares[name] * len(keys))
        parts[name] = sorted(draw(order, size, groups, left, classes, used))
        if not parts[name]:
            raise UserError(
                f"{len(keys)} rows of {len({id(group) for group in groups.values()})} different prompts or conversations are too "
                f"few for split.{name}={shares[name]}. Add rows, raise it, or set split.{name}=0 and split.train to the rest."
            )
    train = [i for i in range(len(keys)) if i not in used]
    if not train:
        raise UserError(f"no row is left for train of {len(keys)}. Add rows, or lower split.val and split.test.")
    return {name: part for name in SPLITS if (part := {TRAIN: train, **parts}.get(name))}


def together(keys: Sequence[tuple[str, ...]]) -> dict[int, list[int]]:
    """Row → all rows of its group: those that share a key with it, or with another row of the group."""
    parents = list(range(len(keys)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    first: dict[str, int] = {}
    for i, own in enumerate(keys):
        for key in own:
            one, other = sorted((root(i), root(first.setdefault(key, i))))
            parents[other] = one
    groups: dict[int, list[int]] = {}
    for i in range(len(keys)):
        groups.setdefault(root(i), []).append(i)
    return {i: group for group in groups.values() for i in group}
