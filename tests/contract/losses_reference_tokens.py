"""What the loss of next tokens must equal: its formulas in float64 numpy, with loops over target tokens and whole logits."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from losses_reference import Arrays, Reference, kl, softmax

K = 3  # tokens that a stored teacher keeps
Compare = Callable[[np.ndarray, np.ndarray], float]


def compare(name: str, beta: float = 0.5, skew: float = 0.1) -> Compare:
    def jsd(p: np.ndarray, q: np.ndarray) -> float:
        m = beta * p + (1 - beta) * q
        return beta * kl(p, m) + (1 - beta) * kl(q, m)

    forms: dict[str, Compare] = {
        "forward_kl": kl,
        "reverse_kl": lambda p, q: kl(q, p),
        "jsd": jsd,
        "skew_kl": lambda p, q: kl(p, skew * p + (1 - skew) * q),
        "skew_reverse_kl": lambda p, q: kl(q, (1 - skew) * p + skew * q),
        "total_variation": lambda p, q: float(np.abs(p - q).sum() / 2),
    }
    return forms[name]


def buckets(p: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.append(p[ids], np.delete(p, ids).sum())


def tokens(divergence: Compare, kind: str | None, alpha: float, t: float = 1.0) -> Reference:
    """kind: of the teacher's answer, states | topk | draws; None without a teacher."""

    def soft(x: Arrays, b: int, place: int, z: np.ndarray) -> float:
        q = softmax(z / t)
        if kind == "draws":
            return -float(np.mean([np.log(q[i]) for i in x["teacher.ids"][b, place]]))
        p = softmax(x["teacher.head"] @ x["teacher.states"][b, place] / t)
        if kind == "topk":
            best = np.argsort(-p)[:K]
            p, q = buckets(p, best), buckets(q, best)
        return divergence(p, q)

    def total(x: Arrays) -> tuple[float, int]:
        value, count = 0.0, 0
        for b, places in enumerate(x["tokens"]):
            for place, following in pairwise(places):
                z = x["student.head"] @ x["student.states"][b, place] + x["student.bias"]
                value -= (1 - alpha) * np.log(softmax(z)[x["next"][b, following]])
                value += alpha * t**2 * soft(x, b, place, z) if kind else 0.0
                count += 1
        return float(value), count

    return total
