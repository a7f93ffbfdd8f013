"""Rows of a model's output as what a person or a program wants to read: plain dicts, ready for JSON.

single_label  {"label": "refund", "probability": 0.97, "probabilities": {"refund": 0.97, …}}   most probable first
multi_label   {"labels": ["refund", …], "probabilities": {…}}                                  labels: those from 0.5
regression    {"value": 3.2}, or {"values": {"joy": 0.1, …}} where the model has several
embedding     {"embedding": [0.1, …]}
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

THRESHOLD = 0.5  # of multi_label, as in training's metrics
Answer = dict[str, Any]


def answers(rows: np.ndarray, problem: str, labels: Sequence[str], top: int | None = None) -> list[Answer]:
    """rows: (N, C) logits or (N, D) embeddings. top: how many probabilities each answer shows; None: all of them."""
    if problem == "embedding":
        return [{"embedding": row.tolist()} for row in rows]
    if problem == "regression":
        return [_values(row, labels) for row in rows.tolist()]
    probabilities = (softmax if problem == "single_label" else sigmoid)(rows)
    order = np.argsort(-probabilities, axis=1, kind="stable")[
        :, :top
    ]  # stable: of equal ones the first, as argmax does
    return [_labelled(row, ranks, problem, labels) for row, ranks in zip(probabilities, order.tolist(), strict=True)]


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(z_c) / Σ exp(z_k) of each row, (N, C) in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−z)) of each entry, in float64, written with tanh, which does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def _labelled(row: np.ndarray, ranks: Sequence[int], problem: str, labels: Sequence[str]) -> Answer:
    shown = {labels[i]: float(row[i]) for i in ranks}
    if problem == "single_label":
        best = labels[ranks[0]]
        return {"label": best, "probability": shown[best], "probabilities": shown}
    return {"labels": [label for label, p in zip(labels, row, strict=True) if p >= THRESHOLD], "probabilities": shown}


def _values(row: list[float], labels: Sequence[str]) -> Answer:
    return {"value": row[0]} if len(row) == 1 else {"values": dict(zip(labels, row, strict=True))}
