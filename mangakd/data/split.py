"""Splits off training rows, and what equal texts mean for a split: copies on both sides, and labels that contradict.

Texts that differ in blanks or in the composition of characters alone count as equal (rows.identity).
"""

import logging
import random
from collections import Counter
from collections.abc import Sequence

from mangakd.core.errors import UserError
from mangakd.data.notices import short
from mangakd.data.rows import Rows, identity

log = logging.getLogger(__name__)
KEYS = {"train": "data.path", "validation": "data.val_path", "test": "data.test_path"}
Groups = dict[str, list[int]]


def split_off(rows: Rows, names: Sequence[str], seed: int) -> dict[str, Rows]:
    """train and `names`, a tenth of the rows each, drawn by `seed`.

    Rows of equal texts stay together, and the last row of a class stays in train. Raises UserError where there are too few rows.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    size = max(len(order) // 10, 1)
    groups = equal_texts(rows)
    together = {i: group for group in groups.values() for i in group}
    left = Counter(label for labels in rows.labels for label in labels)
    parts, taken = {}, set[int]()
    for name in names:
        part = _draw(order, size, together, left, rows, taken) if len(order) > size * len(names) else []
        if not part:
            raise UserError(_too_few(rows, len(groups), names))
        parts[name] = rows.take(sorted(part))
    parts["train"] = rows.take([i for i in range(len(rows)) if i not in taken])
    copies = len(rows) - len(groups)
    log.info(
        "no file for %s: %s rows split off the training rows (data.split_seed=%d)%s.",
        " and ".join(names), " and ".join(str(len(parts[name])) for name in names), seed,
        f"; {copies} rows repeat the text of another, and equal texts are kept on one side" if copies else "",
    )  # fmt: skip
    return parts


def _draw(
    order: Sequence[int], size: int, together: dict[int, list[int]], left: Counter[str], rows: Rows, taken: set[int]
) -> list[int]:
    """At most `size` rows in whole groups, the first of `order` that can go; `left` and `taken` are brought up to date."""
    part: list[int] = []
    for i in order:
        if len(part) == size:
            break
        group = together[i]
        labels = Counter(label for each in group for label in rows.labels[each])
        leaves_train_one = all(left[label] > count for label, count in labels.items())
        if i in taken or len(part) + len(group) > size or not leaves_train_one:
            continue
        left.subtract(labels)
        taken.update(group)
        part += group
    return part


def _too_few(rows: Rows, different: int, names: Sequence[str]) -> str:
    keys = " and ".join(KEYS[name] for name in names)
    texts = "" if different == len(rows) else f" of {different} different texts"
    return (
        f"{rows.origin} has {len(rows)} rows{texts}, too few to split {' and '.join(names)} off with every class left in train. "
        f"Add rows, or set {keys}."
    )


def equal_texts(rows: Rows) -> Groups:
    """Positions of the rows by their text."""
    groups: Groups = {}
    for i, text in enumerate(rows.texts):
        groups.setdefault(identity(text), []).append(i)
    return groups


def warn_of_copies(parts: dict[str, Rows]) -> None:
    """Warn of texts with contradicting labels in the same or in two files, and of held-out texts that train has."""
    groups = {name: equal_texts(rows) for name, rows in parts.items()}
    _warn_of_contradictions(parts, groups)
    for name in parts:
        both = [group for text, group in groups[name].items() if text in groups["train"]] if name != "train" else []
        if both:
            rows = parts[name]
            log.warning(
                "%s: texts that train has, too, so that their scores are too good: %d; first: %s, %s",
                rows.origin, len(both), rows.place(both[0][0]), short(rows.texts[both[0][0]]),
            )  # fmt: skip


def _warn_of_contradictions(parts: dict[str, Rows], groups: dict[str, Groups]) -> None:
    cases = []
    for text in dict.fromkeys(text for each in groups.values() for text in each):
        places = [(parts[name], i) for name, each in groups.items() for i in each.get(text, ())]
        answers = {frozenset(rows.labels[i]): (rows, i) for rows, i in reversed(places)}
        if len(answers) > 1:
            cases.append(list(answers.values())[::-1])
    if cases:
        (rows, i), (others, j) = cases[0][:2]
        log.warning(
            "texts with different labels in different rows, all of which are kept: %d; first: %s is %s in %s, and %s in %s",
            len(cases), short(rows.texts[i]), _names(rows, i), rows.where(i), _names(others, j), others.where(j),
        )  # fmt: skip


def _names(rows: Rows, i: int) -> str:
    return ", ".join(map(repr, rows.labels[i])) or "no label"
