"""Converts rows of a model's output to plain dicts, ready for JSON.

labels            {"label": "refund", "probability": 0.97, "probabilities": {"refund": 0.97, …}}   most probable first
labels, several   {"labels": ["refund", …], "probabilities": {…}}                                  labels: those from 0.5
score             {"value": 3.2}, or {"values": {"joy": 0.1, …}} for a head of several scores
vector            {"embedding": [0.1, …]}
score of a pair   {"index": 2, "score": 5.1}   one for each document, best first
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mangakd.core.spec import Head, numbered

THRESHOLD = 0.5  # of several labels, as in training's metrics
Answer = dict[str, Any]


def answers(rows: np.ndarray, head: Head, top: int | None = None) -> list[Answer]:
    """rows: (N, C) logits or (N, D) embeddings. top: number of probabilities in each answer; None: all."""
    if head.kind == "vector":
        return [{"embedding": row.tolist()} for row in rows]
    if head.kind == "score":
        return [_values(row, head) for row in rows.tolist()]
    probabilities = (sigmoid if head.several else softmax)(rows)
    order = np.argsort(-probabilities, axis=1, kind="stable")[
        :, :top
    ]  # stable: of equal ones the first, as argmax does
    return [_label_answer(row, ranks, head) for row, ranks in zip(probabilities, order.tolist(), strict=True)]


def ranking(rows: np.ndarray) -> list[Answer]:
    """rows: (N, 1) scores of a query's documents. Best first; of equal scores the first document first."""
    scores = rows[:, 0]
    return [{"index": int(i), "score": float(scores[i])} for i in np.argsort(-scores, kind="stable")]


def shortened(rows: np.ndarray, dims: int | None) -> np.ndarray:
    """The first `dims` of each row of (N, D), normalised; None: the rows as they are. A row of zeros stays one."""
    return rows if dims is None else normalised(rows[:, :dims])


def normalised(rows: np.ndarray) -> np.ndarray:
    """Each row of (N, D) divided by its length, in float32."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(z_c) / Σ exp(z_k) of each row, (N, C) in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−z)) of each entry, in float64. Uses tanh, because exp would overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def _label_answer(row: np.ndarray, ranks: Sequence[int], head: Head) -> Answer:
    labels = head.names
    probabilities = {labels[i]: float(row[i]) for i in ranks}
    if not head.several:
        best = labels[ranks[0]]
        return {"label": best, "probability": probabilities[best], "probabilities": probabilities}
    return {
        "labels": [label for label, p in zip(labels, row, strict=True) if p >= THRESHOLD],
        "probabilities": probabilities,
    }


def _values(row: list[float], head: Head) -> Answer:
    names = head.names or numbered(len(row))
    return {"value": row[0]} if len(row) == 1 else {"values": dict(zip(names, row, strict=True))}
