"""Rows of texts → sequences beside what is known of them.

A row owns one sequence (a text alone), two (anchor and positive, or a pair with a score), or more (negatives). Columns:
`labels` (N) int64, 1 where the second text is the anchor's positive, else -100; `score` (N) float32 in [0, 1], NaN where there
is none; `anchor_key` and `positive_key` (N) int64, equal for equal texts, 0 where a row has no second text.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from mangakd.data.encoded import EncodedSplit, Sides, Tokenise
from mangakd.data.rows import Rows
from mangakd.losses.hard_label import IGNORE

Prompts = Mapping[str, Mapping[str, str]]
ROLES = ("query", "document")


def encode(rows: Rows, most: float, prompts: Prompts, tokenise: Tokenise) -> EncodedSplit:
    """most: the score of two texts that mean the same. Rows without a `score` column are texts alone, whatever their relation."""
    texts = [*texts_of(rows)]
    first = np.cumsum([0, *map(len, texts)])
    sides = _sides(texts, prompts, tokenise)
    count, labelled = len(rows), "score" in rows
    score = np.array(rows["score"] if labelled else [np.nan] * count, dtype=np.float32) / most
    several = np.diff(first) > 1
    positive = several & ~np.isfinite(score) & labelled
    second = np.where(several, first[:-1] + 1, 0)
    columns = {
        "labels": np.where(positive, 1, IGNORE).astype(np.int64),
        "score": score,
        "anchor_key": sides.teacher.keys[first[:-1]],
        "positive_key": np.where(several, sides.teacher.keys[second], 0),
    }
    units = {"labels": (positive | np.isfinite(score)).astype(np.int64)}
    return EncodedSplit(sides, columns, units, first if several.any() else None)


def texts_of(rows: Rows) -> Iterator[list[str]]:
    """Each row's texts: the anchor, and where there are any its second text and its negatives."""
    columns = (rows[name] for name in ("text", "anchor", "positive", "negatives"))
    for text, anchor, positive, negatives in zip(*columns, strict=True):
        yield [anchor or text, *([positive] if positive.strip() else []), *negatives]


def prompted(texts: Sequence[str], prompts: Mapping[str, str]) -> Iterator[str]:
    """A row's texts with the prompts of a model: an anchor is a query, all other texts are documents."""
    return (prompts[ROLES[place > 0]] + text for place, text in enumerate(texts))


def _sides(texts: Sequence[Sequence[str]], prompts: Prompts, tokenise: Tokenise) -> Sides:
    """With the prompts of both models."""
    student, teacher = (
        [*chain.from_iterable(prompted(row, prompts[side]) for row in texts)] for side in ("student", "teacher")
    )
    sides = tokenise(student)
    return sides if student == teacher else sides._replace(teacher=tokenise(teacher).teacher)
