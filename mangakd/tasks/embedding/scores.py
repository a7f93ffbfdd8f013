"""The formulas of the scores of embeddings, in NumPy and float64.

spearman: correlation of the ranks of two columns of numbers; ties share the mean of their ranks.
Retrieval: each anchor looks for its positive among all different positives of the split. With b candidates that are more
similar and t that are as similar, the positive's rank is any of b + 1 … b + t + 1 with equal chance; scores are expected values.

    recall@k = P(rank ≤ k)     mrr@k = E[1/rank, 0 from rank k + 1 on]     ndcg@k = E[1/log₂(1 + rank), 0 from rank k + 1 on]

Shapes: N rows, U different positives, D dimensions, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mangakd.evaluation.bootstrap import Recount, Statistic

GAINS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall": np.ones_like,
    "mrr": lambda ranks: 1 / ranks,
    "ndcg": lambda ranks: 1 / np.log2(1 + ranks),
}
_ROWS = 512  # anchors at a time
_DIGITS = 9  # equal vectors give cosines that differ by rounding


def unit(vectors: np.ndarray, size: int | None = None) -> np.ndarray:
    """(N, D) → (N, size) of length 1; a vector of zeros stays one."""
    cut = vectors[:, :size].astype(np.float64)
    return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)


def spearman(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Recount:
    """x, y: (N), of which `rows` (N) bool count. NaN where a resample has one value alone."""
    one, other = _Ranks(x[rows]), _Ranks(y[rows])

    def score(counts: np.ndarray) -> np.ndarray:
        weights = counts[:, rows].astype(np.float64)
        return _correlation(one(weights), other(weights), weights)

    return Recount.of(len(x), score, least=-1.0)


class _Ranks:
    """Weights (R, n) of n numbers → their ranks (R, n), as if each stood there as often as its weight says."""

    def __init__(self, values: np.ndarray) -> None:
        self._order = np.argsort(values, kind="stable")
        new = np.diff(values[self._order], prepend=np.nan) != 0
        self._starts, self._group = np.flatnonzero(new), np.cumsum(new) - 1

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        ties = np.add.reduceat(weights[:, self._order], self._starts, axis=1)
        ranks = np.empty_like(weights)
        ranks[:, self._order] = (ties.cumsum(1) - (ties - 1) / 2)[:, self._group]
        return ranks


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r of each row of x and y (R, n)."""
    total = weights.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (side - (weights * side).sum(1, keepdims=True) / total for side in (x, y))
        spread = np.sqrt((weights * x**2).sum(1) * (weights * y**2).sum(1))
        return np.where(spread > 0, (weights * x * y).sum(1) / spread, np.nan)


def mean(values: np.ndarray, rows: np.ndarray, least: float = 0.0) -> Statistic:
    """Of values (N), of which `rows` (N) bool count."""
    features = np.stack([np.where(rows, values, 0.0), rows], axis=1).astype(np.float64)
    return Statistic(features, _mean_of, least=least)


def _mean_of(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def mean_cosine(vectors: np.ndarray) -> np.ndarray:
    """(N) mean cosine of each vector with all others; near 1 for a model that says the same of all texts."""
    return (vectors @ vectors.sum(0) - (vectors**2).sum(1)) / max(len(vectors) - 1, 1)


def places(
    anchors: np.ndarray, positives: np.ndarray, anchor_keys: np.ndarray, positive_keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(better, tied), each (N): candidates that are more similar to the anchor than its positive, and as similar.

    anchors, positives: (N, D) of length 1. Equal keys are equal texts: a positive is one candidate however often it occurs, and
    other positives of the same anchor are no candidates.
    """
    _, first, own = np.unique(positive_keys, return_index=True, return_inverse=True)
    candidates = positives[first]
    others = dict(_others(anchor_keys, own))
    better, tied = np.empty(len(anchors)), np.empty(len(anchors))
    for start in range(0, len(anchors), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(anchors)))
        cosines = np.round(anchors[rows] @ candidates.T, _DIGITS)
        mine = cosines[np.arange(len(rows)), own[rows]][:, None]
        for i in set(rows.tolist()) & others.keys():
            cosines[i - start, others[i]] = -np.inf
        better[rows], tied[rows] = (cosines > mine).sum(1), (cosines == mine).sum(1) - 1
    return better, tied


def _others(anchor_keys: np.ndarray, own: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(row, the candidates that are positives of the same anchor in other rows), for anchors with several positives."""
    _, group, sizes = np.unique(anchor_keys, return_inverse=True, return_counts=True)
    for row in np.flatnonzero(sizes[group] > 1).tolist():
        alike = np.unique(own[group == group[row]])
        if len(alike) > 1:
            yield row, alike[alike != own[row]]


def expected(gain: str, k: int, better: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """(N) expected gain of the positive at ranks 1 … k."""
    sums = np.concatenate([[0.0], np.cumsum(GAINS[gain](np.arange(1.0, k + 1)))])
    low, high = (np.minimum(end, k).astype(int) for end in (better, better + tied + 1))
    return (sums[high] - sums[low]) / (tied + 1)


def main_directions(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) → mean (D) and the directions (D, count) of the largest variance."""
    centre = vectors.mean(0)
    centred = vectors - centre
    return centre, np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
