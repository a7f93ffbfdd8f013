"""Rows of texts → sequences beside what is known of them.

A row owns one sequence (a text alone), two (anchor and positive, or a pair with a score), or more (negatives). Columns:
`labels` (N) int64, 1 where the second text is the anchor's positive, else -100; `score` (N) float32 in [0, 1], NaN where there
is none; `anchor_key` and `positive_key` (N) int64, equal for equal texts, 0 where a row has no second text.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mangakd.data.encoded import EncodedSplit, Sides, Tokenise
from mangakd.data.rows import Rows
from mangakd.losses.hard_label import IGNORE

Prompts = Mapping[str, Mapping[str, str]]
ROLES = ("query", "document")


def encode(rows: Rows, most: float, prompts: Prompts, tokenise: Tokenise) -> EncodedSplit:
    """most: the score of two texts that mean the same. Rows without a `score` column are texts alone, whatever their relation."""
    texts, first = _texts(rows)
    sides = _sides(texts, first, prompts, tokenise)
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


def _texts(rows: Rows) -> tuple[list[str], np.ndarray]:
    """All sequences in a row, and first (N + 1)."""
    texts: list[str] = []
    first = [0]
    for text, anchor, positive, negatives in zip(
        *(rows[name] for name in ("text", "anchor", "positive", "negatives")), strict=True
    ):
        texts += [anchor or text, *([positive] if positive.strip() else []), *negatives]
        first.append(len(texts))
    return texts, np.array(first)


def _sides(texts: Sequence[str], first: np.ndarray, prompts: Prompts, tokenise: Tokenise) -> Sides:
    """With the prompts of both models: an anchor is a query, all other texts are documents."""
    anchors = np.zeros(len(texts), dtype=bool)
    anchors[first[:-1]] = True
    prompted = {side: [prompts[side][ROLES[not is_anchor]] + text for text, is_anchor in zip(texts, anchors, strict=True)]
             for side in ("student", "teacher")}  # fmt: skip
    sides = tokenise(prompted["student"])
    if prompted["teacher"] == prompted["student"]:
        return sides
    return sides._replace(teacher=tokenise(prompted["teacher"]).teacher)
