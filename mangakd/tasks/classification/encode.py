"""Rows of texts and label names → tokens beside targets: class ids (N) int64, or 0 and 1 (N, C) float32 with several labels."""

import numpy as np

from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.rows import Rows
from mangakd.losses.hard_label import IGNORE


def labelled(sides: Sides, labels: np.ndarray) -> EncodedSplit:
    """A split with one text a row. labels: (N) or (N, C); -100 is no label."""
    counts = (labels != IGNORE).reshape(len(labels), -1).sum(1)
    return EncodedSplit(sides, {"labels": labels}, {"labels": counts})


def targets(rows: Rows, head: Head) -> np.ndarray:
    """Of rows without labels: -100."""
    if "label" not in rows:
        shape, dtype = ((len(rows), head.outputs), np.float32) if head.several else ((len(rows),), np.int64)
        return np.full(shape, IGNORE, dtype)
    position = {label: i for i, label in enumerate(head.names)}
    if not head.several:
        return np.array([position[names[0]] for names in rows["label"]], dtype=np.int64)
    table = np.zeros((len(rows), head.outputs), dtype=np.float32)
    for i, names in enumerate(rows["label"]):
        table[i, [position[name] for name in names]] = 1.0
    return table
