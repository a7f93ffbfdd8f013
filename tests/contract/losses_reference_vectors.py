"""What the losses of vectors must equal: their formulas in float64 numpy, with loops over texts, rows and prefixes.

Vectors of a side are (B, W, D), of which row b holds the first `sizes[b]`; `keys` says which texts are equal.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from losses_reference import Arrays, Reference, kl, softmax

Texts = list[tuple[int, int]]  # (row, place in the row)


def texts(x: Arrays) -> Texts:
    return [(b, i) for b, size in enumerate(x["sizes"]) for i in range(size)]


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def cosine(x: Arrays, side: str, one: tuple[int, int], other: tuple[int, int], size: int | None = None) -> float:
    a, b = (x[f"{side}.vector"][place][:size] for place in (one, other))
    return float(unit(a) @ unit(b))


def over(dims: Sequence[int | None], of_one: Callable[[Arrays, int | None], tuple[float, int]]) -> Reference:
    """The mean over prefixes of the student."""

    def reference(x: Arrays) -> tuple[float, int]:
        parts = [of_one(x, size) for size in dims]
        return float(np.mean([total for total, _ in parts])), parts[0][1]

    return reference


def similarity(compare: str, t: float = 1.0, dims: Sequence[int | None] = (None,)) -> Reference:
    def of_one(x: Arrays, size: int | None) -> tuple[float, int]:
        total, count = 0.0, 0
        for one in texts(x):
            others = [other for other in texts(x) if x["keys"][other] != x["keys"][one]]
            ours = np.array([cosine(x, "student", one, other, size) for other in others])
            theirs = np.array([cosine(x, "teacher", one, other) for other in others])
            if compare == "mse":
                total += float(((ours - theirs) ** 2).mean())
            else:
                total += t * t * kl(softmax(theirs / t), softmax(ours / t))
            count += 1
        return total, count

    return over(dims, of_one)


def contrastive(
    t: float, soft: float = 0.0, teacher_t: float | None = None, dims: Sequence[int | None] = (None,)
) -> Reference:
    def of_one(x: Arrays, size: int | None) -> tuple[float, int]:
        rows = [b for b, label in enumerate(x["labels"]) if label == 1]
        every = [place for place in texts(x) if place[0] in rows and place[1] > 0]
        total = 0.0
        for b in rows:
            anchor, positive = (b, 0), (b, 1)
            taken = {x["keys"][anchor], x["keys"][positive]}
            candidates = [place for place in every if place == positive or x["keys"][place] not in taken]
            ours = np.array([cosine(x, "student", anchor, place, size) for place in candidates]) / t
            q = softmax(ours)
            total += (1 - soft) * -math.log(q[candidates.index(positive)])
            if soft:
                theirs = np.array([cosine(x, "teacher", anchor, place) for place in candidates]) / (teacher_t or t)
                total += soft * kl(softmax(theirs), q)
        return total, len(rows)

    return over(dims, of_one)


def pair_score(dims: Sequence[int | None] = (None,)) -> Reference:
    def of_one(x: Arrays, size: int | None) -> tuple[float, int]:
        rows = [b for b, score in enumerate(x["score"]) if not math.isnan(score)]
        total = sum((cosine(x, "student", (b, 0), (b, 1), size) - x["score"][b]) ** 2 for b in rows)
        return float(total), len(rows)

    return over(dims, of_one)


def vector(compare: str, width: str = "none", dims: Sequence[int | None] = (None,)) -> Reference:
    def of_one(x: Arrays, size: int | None) -> tuple[float, int]:
        total, count = 0.0, 0
        for place in texts(x):
            s, t = x["student.vector"][place][:size], x["teacher.vector"][place]
            if size is not None or width == "pca":
                s = unit(s)
            if width == "linear":
                name = f"state.projections.{size or len(x['student.vector'][place])}"
                s = x[f"{name}.weight"] @ s + x[f"{name}.bias"]
            if width == "pca":
                t = unit(((t - x["state.mean"]) @ x["state.directions"])[: len(s)])
            total += 1 - float(unit(s) @ unit(t)) if compare == "cosine" else float(((s - t) ** 2).sum())
            count += 1
        return total, count

    return over(dims, of_one)
