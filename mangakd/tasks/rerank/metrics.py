"""The scores of a ranker, each as sums over queries. Imports no torch: reports are made without it.

Of a query's documents in the order of their scores, with grades g and the place i = 1, 2, …:

    ndcg_exp@k   Σ_{i ≤ k} (2^g_i − 1) / log2(i + 1), divided by the same sum of the best order
    ndcg_lin@k   the same with g_i in place of 2^g_i − 1 (trec_eval's ndcg_cut)
    mrr@k        1 / place of the first relevant document, 0 where it is beyond k
    recall@k     share of the relevant documents that are among the first k
    judged@k     share of the first k documents that somebody judged; the others count as grade 0 in the scores above
    agreement    whether student and teacher put the same document first
    tau          Kendall: (pairs in the teacher's order − pairs in the other order) / pairs that the teacher orders
    kl           KL(softmax(teacher) ‖ softmax(student)) over the documents, nats

Documents of equal score have no order of their own, so each score is its expected value over all orders of the tied documents.
So neither the order of a file nor names of documents decide, and a model that gives all documents one score gets what chance
gets.

Queries without a relevant document have no NDCG, MRR or recall; queries of one document have no KL, and those that the teacher
does not order no tau. They are left out: each score is Σ over queries of (value, 1) or (0, 0), and its value the ratio.

Shapes: scores and grades (N, G), padded with -inf and NaN. N queries, G documents of the longest list.

Source: Järvelin and Kekäläinen 2002 (NDCG); Burges et al. 2005 (its exponential gain); ties: McSherry and Najork 2008.
"""

from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any

import numpy as np

from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.statistics import log_softmax


@dataclass(frozen=True)
class Ranking:
    """grades: (N, G) in the order of the scores, 0 for no document. A document at place i (from 0) is tied with those at the
    places start[i] up to end[i]."""

    grades: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, grades: np.ndarray) -> "Ranking":
        """A score that is NaN ranks last, with the padding."""
        scores = np.nan_to_num(scores.astype(np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, 1)
        places = np.arange(scores.shape[1])
        new = np.ones(scores.shape, dtype=bool)
        new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        start = np.maximum.accumulate(np.where(new, places, 0), axis=1)
        last = np.roll(new, -1, axis=1)
        last[:, -1] = True
        end = np.minimum.accumulate(np.where(last, places, len(places))[:, ::-1], axis=1)[:, ::-1] + 1
        finite = np.nan_to_num(grades.astype(np.float64), nan=0.0)
        return cls(np.take_along_axis(finite, order, 1), start, end)

    @cached_property
    def graded(self) -> np.ndarray:
        """(N) bool: queries with a grade above 0."""
        return self.grades.max(1) > 0

    def relevant(self, least: float | None) -> np.ndarray:
        """(N, G) bool: documents with at least this grade; None: with the best grade of their query. Never those of grade 0."""
        best = self.grades.max(1, keepdims=True) if least is None else least
        return (self.grades >= best) & (self.grades > 0)

    def expected(self, weights: np.ndarray) -> np.ndarray:
        """(N, G): each document's mean weight over the places that its ties may take. weights: (G) of the places."""
        sums = np.concatenate([[0.0], np.cumsum(weights)])
        return (sums[self.end] - sums[self.start]) / (self.end - self.start)


def ndcg(ranking: Ranking, k: int, exponential: bool) -> Statistic:
    gains = np.exp2(ranking.grades) - 1 if exponential else ranking.grades
    places = np.arange(gains.shape[1])
    discounts = np.where(places < k, 1 / np.log2(places + 2), 0.0)
    best = -np.sort(-gains, axis=1) @ discounts
    return _over(
        np.divide((gains * ranking.expected(discounts)).sum(1), best, where=best > 0, out=np.zeros(len(best))), best > 0
    )


def recall(ranking: Ranking, k: int, least: float | None) -> Statistic:
    relevant = ranking.relevant(least)
    hits = (relevant * ranking.expected((np.arange(relevant.shape[1]) < k).astype(np.float64))).sum(1)
    return _over(hits / np.maximum(relevant.sum(1), 1), relevant.any(1))


def judged(scores: np.ndarray, marks: np.ndarray, k: int) -> Statistic:
    """marks: (N, G) 1 for a document that somebody judged, 0 for another, NaN in padding."""
    firsts = Ranking.of(scores, marks)
    hits = (firsts.grades * firsts.expected((np.arange(marks.shape[1]) < k).astype(np.float64))).sum(1)
    sizes = np.isfinite(marks).sum(1)
    return _over(hits / np.clip(sizes, 1, k), sizes > 0)


def mrr(ranking: Ranking, k: int, least: float | None) -> Statistic:
    """Of m tied documents from the place a on, r of them relevant, the first relevant one is at a + j with the probability
    C(m − j − 1, r − 1) / C(m, r)."""
    relevant = ranking.relevant(least)
    first, rows = relevant.argmax(1), np.arange(len(relevant))
    start, end = ranking.start[rows, first], ranking.end[rows, first]
    places = np.arange(relevant.shape[1])
    tied = (places >= start[:, None]) & (places < end[:, None])
    count = (relevant & tied).sum(1)
    values = np.zeros(len(relevant))
    for key in set(zip(start.tolist(), (end - start).tolist(), count.tolist(), strict=True)):
        a, m, r = key
        match = (start == a) & (end - start == m) & (count == r)
        values[match] = (
            sum(comb(m - j - 1, r - 1) / comb(m, r) / (a + j + 1) for j in range(min(m - r + 1, k - a))) if r else 0
        )
    return _over(values, relevant.any(1))


def agreement(student: np.ndarray, teacher: np.ndarray) -> Statistic:
    """The chance that both put the same document first."""
    one, other = (_first(scores) for scores in (student, teacher))
    return _over((one * other).sum(1), np.ones(len(one), dtype=bool))


def _first(scores: np.ndarray) -> np.ndarray:
    """(N, G): each document's chance to be first among its ties."""
    best = scores == scores.max(1, keepdims=True)
    return best / best.sum(1, keepdims=True)


def tau(student: np.ndarray, teacher: np.ndarray) -> Statistic:
    """Document by document, so that no (N, G, G) exists at once."""
    total, pairs = np.zeros(len(student)), np.zeros(len(student))
    for i in range(student.shape[1]):
        there = np.isfinite(teacher[:, i : i + 1]) & np.isfinite(teacher[:, :i])
        own, other = (np.sign(_minus(scores[:, :i], scores[:, i : i + 1])) * there for scores in (student, teacher))
        total += (own * other).sum(1)
        pairs += (other != 0).sum(1)
    return _over(total / np.maximum(pairs, 1), pairs > 0, least=-1.0)


def _minus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # -inf − -inf in padding
        return np.nan_to_num(one - other, posinf=np.inf, neginf=-np.inf)


def kl(student: np.ndarray, teacher: np.ndarray) -> Statistic:
    log_p, log_q = (log_softmax(scores.astype(np.float64)) for scores in (teacher, student))
    p = np.exp(log_p)
    parts = np.multiply(p, _minus(log_p, log_q), where=p > 0, out=np.zeros_like(p))
    return _over(parts.sum(1), np.isfinite(teacher).sum(1) > 1, most=np.inf)


def spread(scores: np.ndarray) -> np.ndarray:
    """(N) standard deviation of a query's scores, of the documents that it has."""
    finite = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        values = np.where(finite, scores, 0.0)
        mean = values.sum(1) / finite.sum(1)
        return np.sqrt((np.where(finite, values - mean[:, None], 0.0) ** 2).sum(1) / finite.sum(1))


def _over(values: np.ndarray, counts: Any, most: float = 1.0, least: float = 0.0) -> Statistic:
    """The mean of the values (N) of the queries that count: (N) bool."""
    return Statistic(np.stack([np.where(counts, values, 0.0), counts], 1).astype(np.float64), ratio, most, least)


def ratio(sums: np.ndarray, rows: int = 0) -> np.ndarray:
    """sums: (…, 2) of values and of queries that count. NaN where none counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]
