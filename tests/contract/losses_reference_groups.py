"""What ranking losses must equal, as losses_reference.py: plain loops over queries, documents and pairs of documents.

`student.logits`, `teacher.logits`, `grades` are tables (B, G), `sizes` (B) says how many documents of each row there are.
"""

import math
from collections.abc import Callable

import numpy as np
from losses_reference import Arrays, Reference, kl, sigmoid, softmax


def queries(x: Arrays, counts: Callable[[np.ndarray], bool]) -> list[dict[str, np.ndarray]]:
    """The queries that count, each cut to its documents. counts: grades (or scores, without grades) → whether it counts."""
    found = []
    for b, size in enumerate(x["sizes"]):
        one = {name: x[name][b][:size] for name in ("student.logits", "teacher.logits", "grades") if name in x}
        if counts(one.get("grades", one["student.logits"])):
            found.append(one)
    return found


def differ(grades: np.ndarray) -> bool:
    return len(set(grades)) > 1


def by_pairs(each: Callable[[float, float], float], graded: bool) -> Reference:
    """each: (the student's difference, the teacher's or 0) of an ordered pair → its part, or NaN for no pair."""

    def reference(x: Arrays) -> tuple[float, int]:
        total, chosen = 0.0, queries(x, differ if graded else lambda one: len(one) > 1)
        for one in chosen:
            s, parts = one["student.logits"], []
            t = one.get("teacher.logits", np.zeros(len(s)))
            for i in range(len(s)):
                for j in range(len(s)):
                    if i != j and (not graded or one["grades"][i] > one["grades"][j]):
                        parts.append(each(s[i] - s[j], t[i] - t[j]))
            total += float(np.nanmean(parts))
        return total, len(chosen)

    return reference


def margin_mse(graded: bool = False) -> Reference:
    return by_pairs(lambda s, t: (s - t) ** 2, graded)


def margin_hinge(margin: float = 0.0, graded: bool = False) -> Reference:
    return by_pairs(lambda s, t: max(0.0, t - s + margin) if graded or t > 0 else math.nan, graded)


def rank_net(x: Arrays) -> tuple[float, int]:
    return by_pairs(lambda s, t: math.log(1 + math.exp(-s)), graded=True)(x)


def listwise_kl(t: float = 1.0) -> Reference:
    def reference(x: Arrays) -> tuple[float, int]:
        chosen = queries(x, lambda one: len(one) > 1)
        each = [t**2 * kl(softmax(one["teacher.logits"] / t), softmax(one["student.logits"] / t)) for one in chosen]
        return sum(each), len(chosen)

    return reference


def list_net(sharpness: float = 1.0) -> Reference:
    def reference(x: Arrays) -> tuple[float, int]:
        chosen = queries(x, differ)
        return sum(kl(softmax(sharpness * one["grades"]), softmax(one["student.logits"])) for one in chosen), len(
            chosen
        )

    return reference


def score_mse(x: Arrays) -> tuple[float, int]:
    chosen = queries(x, lambda one: True)
    return sum(float(((one["student.logits"] - one["teacher.logits"]) ** 2).mean()) for one in chosen), len(chosen)


def binary(relevant: float) -> Reference:
    def reference(x: Arrays) -> tuple[float, int]:
        chosen = queries(x, lambda grades: not np.isnan(grades).any())
        total = 0.0
        for one in chosen:
            p, y = sigmoid(one["student.logits"]), one["grades"] >= relevant
            total -= float(np.log(np.where(y, p, 1 - p)).mean())
        return total, len(chosen)

    return reference
