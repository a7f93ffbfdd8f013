"""Splits off training rows, and what equal texts mean for a split: copies on both sides, and labels that contradict.

Texts that differ in blanks or in the composition of characters alone count as equal (rows.identity).
"""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from mangakd.core.errors import UserError
from mangakd.data.notices import short
from mangakd.data.rows import Columns, Rows, companies, identities, inputs, strata

log = logging.getLogger(__name__)
KEYS = {"train": "data.path", "validation": "data.val_path", "test": "data.test_path"}
Groups = dict[str, list[int]]


def split_off(rows: Rows, names: Sequence[str], seed: int, columns: Columns) -> dict[str, Rows]:
    """train and `names`, a tenth of the rows each, drawn by `seed`.

    Rows of equal texts, of a conversation or of a group stay together, and the last row of a class stays in train.
    Raises UserError where there are too few rows.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    size = max(len(order) // 10, 1)
    groups = _positions(companies(rows, columns))
    together = {i: group for group in groups.values() for i in group}
    classes = _classes(rows, columns)
    left = Counter(label for labels in classes for label in labels)
    parts, used_rows = {}, set[int]()
    for name in names:
        part = draw(order, size, together, left, classes, used_rows) if len(order) > size * len(names) else []
        if not part:
            raise UserError(_too_few(rows, len(groups), names, columns))
        parts[name] = rows.take(sorted(part))
    parts["train"] = rows.take([i for i in range(len(rows)) if i not in used_rows])
    copies = len(rows) - len(equal_texts(rows, columns))
    kept = (
        ""
        if len(rows) - copies == len(groups)
        else f"; rows of {len(groups)} conversations or groups are kept on one side"
    )
    log.info(
        "no file for %s: %s rows split off the training rows (data.split_seed=%d)%s%s.",
        " and ".join(names), " and ".join(str(len(parts[name])) for name in names), seed,
        f"; {copies} rows repeat the text of another, and equal texts are kept on one side" if copies else "",
        kept,
    )  # fmt: skip
    return parts


def draw(
    order: Sequence[int], size: int, together: dict[int, list[int]], left: Counter[str],
    classes: Sequence[tuple[str, ...]], used_rows: set[int],
) -> list[int]:  # fmt: skip
    """At most `size` rows in whole groups, the first of `order` that can go; `left` and `taken` are brought up to date."""
    part: list[int] = []
    for i in order:
        if len(part) == size:
            break
        group = together[i]
        labels = Counter(label for each in group for label in classes[each])
        leaves_train_one = all(left[label] > count for label, count in labels.items())
        if i in used_rows or len(part) + len(group) > size or not leaves_train_one:
            continue
        left.subtract(labels)
        used_rows.update(group)
        part += group
    return part


def _too_few(rows: Rows, different: int, names: Sequence[str], columns: Columns) -> str:
    keys = " and ".join(KEYS[name] for name in names)
    alike = different == len(equal_texts(rows, columns))
    texts = (
        "" if different == len(rows) else f" of {different} {'different texts' if alike else 'conversations or groups'}"
    )
    left = " with every class left in train" if strata(columns) else ""
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    return (
        f"{rows.origin} has {count}{texts}, too few to split {' and '.join(names)} off{left}. Add rows, or set {keys}."
    )


def equal_texts(rows: Rows, columns: Columns) -> Groups:
    """Positions of the rows by their inputs."""
    return _positions(identities(rows, columns))


def _positions(keys: Iterable[str]) -> Groups:
    groups: Groups = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return groups


def _classes(rows: Rows, columns: Columns) -> Sequence[tuple[str, ...]]:
    """The names of each row; none where the task has no classes."""
    column = strata(columns)
    return rows[column] if column else [()] * len(rows)


def warn_of_copies(parts: dict[str, Rows], columns: Columns) -> None:
    """Warn of texts with contradicting labels in the same or in two files, and of held-out texts that train has."""
    groups = {name: equal_texts(rows, columns) for name, rows in parts.items()}
    if label := strata(columns):
        _warn_of_contradictions(parts, groups, columns, label)
    for name in parts:
        both = [group for key, group in groups[name].items() if key in groups["train"]] if name != "train" else []
        if both:
            rows = parts[name]
            log.warning(
                "%s: texts that train has, too, so that their scores are too good: %d; first: %s, %s",
                rows.origin, len(both), rows.place(both[0][0]), _first_input(rows, both[0][0], columns),
            )  # fmt: skip


def _first_input(rows: Rows, i: int, columns: Columns) -> str:
    """The first input that the row has, quoted: a file may lack the others."""
    return short(next((rows[name][i] for name in inputs(columns) if rows[name][i]), ""))


def _warn_of_contradictions(parts: dict[str, Rows], groups: dict[str, Groups], columns: Columns, label: str) -> None:
    cases = []
    for key in dict.fromkeys(key for each in groups.values() for key in each):
        places = [(parts[name], i) for name, each in groups.items() for i in each.get(key, ())]
        answers = {frozenset(rows[label][i]): (rows, i) for rows, i in reversed(places)}
        if len(answers) > 1:
            cases.append(list(answers.values())[::-1])
    if cases:
        (rows, i), (others, j) = cases[0][:2]
        log.warning(
            "texts with different labels in different rows, all of which are kept: %d; first: %s is %s in %s, and %s in %s",
            len(cases), _first_input(rows, i, columns), _names(rows[label][i]), rows.where(i), _names(others[label][j]),
            others.where(j),
        )  # fmt: skip


def _names(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels)) or "no label"
