"""The scores of a ranker: against trec_eval on untied data, and against all orders of tied documents."""

import json
import math
from collections.abc import Callable
from itertools import pairwise, permutations

import numpy as np
import pytest
from trec_eval_golden import FILE, lists

from mangakd.evaluation.bootstrap import Statistic
from mangakd.tasks.rerank import metrics
from mangakd.tasks.rerank.metrics import Ranking, agreement, judged, kl, mrr, ndcg, recall, spread, tau

NAN, INF = math.nan, math.inf


def tables(pairs: list[tuple[list[float], list]], width: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(scores, grades), padded as `Task.ask` and `Task.encode` pad them."""
    width = max(width, *(len(scores) for scores, _ in pairs))
    scores = np.array([[*one, *[-INF] * (width - len(one))] for one, _ in pairs], dtype=np.float32)
    return scores, np.array([[*one, *[NAN] * (width - len(one))] for _, one in pairs], dtype=np.float32)


def each(statistic: Statistic) -> list[float]:
    """The value of each query; NaN for one that is left out."""
    return metrics.ratio(statistic.features).tolist()


# --- trec_eval -------------------------------------------------------------------------------------------------------

GOLDEN = json.loads(FILE.read_text())
MEASURES: dict[tuple[str, str], Callable[[Ranking], Statistic]] = {
    ("least 1", "ndcg_cut_3"): lambda r: ndcg(r, 3, exponential=False),
    ("least 1", "ndcg_cut_10"): lambda r: ndcg(r, 10, exponential=False),
    ("exponential", "ndcg_cut_3"): lambda r: ndcg(r, 3, exponential=True),
    ("exponential", "ndcg_cut_10"): lambda r: ndcg(r, 10, exponential=True),
    ("least 1", "recip_rank"): lambda r: mrr(r, 100, 1.0),
    ("least 2", "recip_rank"): lambda r: mrr(r, 100, 2.0),
    ("least 1", "recall_3"): lambda r: recall(r, 3, 1.0),
    ("least 2", "recall_10"): lambda r: recall(r, 10, 2.0),
}


@pytest.mark.parametrize(("table", "measure"), MEASURES)
def test_trec_eval(table: str, measure: str) -> None:
    found = each(MEASURES[table, measure](Ranking.of(*tables(lists()))))
    assert 3 < sum(map(math.isnan, found)) < 30, "trec_eval gives 0 to queries without a relevant document"
    assert np.nan_to_num(found) == pytest.approx(GOLDEN[table][measure], abs=1e-6)


# --- ties ------------------------------------------------------------------------------------------------------------

TIED: list[tuple[list[float], list]] = [
    ([1, 1, 1, 1], [2, 0, 0, 0]), ([1, 1, 1, 1], [0, 0, 0, 2]), ([3, 1, 1, 1, 0], [0, 2, 1, 0, 3]),
    ([2, 2, 1, 1, 1], [0, 0, 1, 1, 0]), ([0, 0, 0, 0, 0, 0], [1, 1, 0, 2, 0, 0]), ([5, 4, 4, 3, 3, 3], [0, 1, 0, 3, 1, 0]),
    ([1, 1], [1, 1]), ([2], [1]), ([1, 1, 1], [0, 0, 0]),
]  # fmt: skip


def orders(scores: list[float]) -> list[tuple[int, ...]]:
    """All orders of documents in which no score is above the one before it."""
    return [
        order for order in permutations(range(len(scores))) if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]


def in_order(name: str, k: int, least: float | None, grades: list[int]) -> float:
    """The score of grades in the order in which they are given."""
    wanted = max(grades) if least is None else least
    relevant = [g >= wanted and g > 0 for g in grades]
    if name == "mrr":
        return next((1 / place for place, hit in enumerate(relevant[:k], 1) if hit), 0.0)
    if name == "recall":
        return sum(relevant[:k]) / sum(relevant)
    gains = [2**g - 1 if name == "ndcg_exp" else g for g in grades]
    dcg, best = (sum(g / math.log2(i + 1) for i, g in enumerate(one[:k], 1)) for one in (gains, sorted(gains)[::-1]))
    return dcg / best


SCORED: dict[str, Callable[[Ranking, int, float | None], Statistic]] = {
    "ndcg_exp": lambda r, k, least: ndcg(r, k, exponential=True),
    "ndcg_lin": lambda r, k, least: ndcg(r, k, exponential=False),
    "mrr": mrr,
    "recall": recall,
}


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("k", [1, 2, 3, 10])
@pytest.mark.parametrize("least", [None, 1.0])
def test_ties_give_the_mean_over_all_orders(name: str, k: int, least: float | None) -> None:
    found = each(SCORED[name](Ranking.of(*tables(TIED, width=7)), k, least))
    for value, (scores, grades) in zip(found, TIED, strict=True):
        if max(grades) == 0:
            assert math.isnan(value)
            continue
        expected = [in_order(name, k, least, [grades[i] for i in order]) for order in orders(scores)]
        assert value == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("place", [0, 3])
def test_four_tied_documents_have_the_ndcg_of_chance(place: int) -> None:
    """0.640 by expectation; trec_eval gives .431 or 1.0 by the documents' names, others by their order."""
    one = [([1.0] * 4, [float(i == place) for i in range(4)])]
    assert ndcg(Ranking.of(*tables(one)), 10, exponential=False).value == pytest.approx(0.6404, abs=1e-4)


# --- judged documents ------------------------------------------------------------------------------------------------

JUDGED = [  # scores, marks, and the share of the first two that are judged
    ([9, 8, 7], [1, 0, 1], 1 / 2), ([7, 8, 9], [1, 0, 0], 0), ([2, 1], [1, 1], 1), ([5], [0], 0), ([5], [1], 1),
    ([1, 1, 1, 0], [1, 1, 0, 1], 2 / 3), ([2, 1, 1], [0, 1, 0], 1 / 4), ([-3, -2, NAN], [1, 0, 1], 1 / 2),
]  # fmt: skip


def test_judged_is_the_share_of_the_first_documents_with_a_judgement() -> None:
    """Worked out by hand: ties give the mean over their orders, and a short list is divided by its own length."""
    scores, marks = tables([(scores, marks) for scores, marks, _ in JUDGED], width=6)
    assert each(judged(scores, marks, 2)) == pytest.approx([share for *_, share in JUDGED])
    assert each(judged(scores, marks, 10)) == pytest.approx([np.mean(marks) for _, marks, _ in JUDGED])


def test_a_query_without_judgements_at_all_is_left_out() -> None:
    """Its row in the table of marks is NaN: nobody gave grades for it."""
    scores, marks = tables([([1.0, 2.0], [NAN, NAN]), ([1.0, 2.0], [0.0, 1.0])])
    assert each(judged(scores, marks, 1)) == pytest.approx([NAN, 1.0], nan_ok=True)


# --- beside a teacher ------------------------------------------------------------------------------------------------


def sides(*pairs: tuple[list[float], list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return tables([(one, [0] * len(one)) for one, _ in pairs])[0], tables([(two, [0] * len(two)) for _, two in pairs])[
        0
    ]


def test_agreement_is_the_chance_of_the_same_first_document() -> None:
    student, teacher = sides(
        ([3, 1, 2], [9, 0, 0]), ([1, 3, 2], [9, 0, 0]), ([1, 1, 0], [9, 0, 0]), ([1, 1, 1], [2, 2, 0]), ([5], [1])
    )
    assert each(agreement(student, teacher)) == pytest.approx([1, 0, 0.5, 1 / 3, 1])


def test_tau_counts_pairs_that_the_teacher_orders() -> None:
    student, teacher = sides(
        ([3, 2, 1], [9, 5, 0]), ([1, 2, 3], [9, 5, 0]), ([1, 1, 1], [9, 5, 0]), ([2, 3, 1], [9, 5, 0]),
        ([3, 2, 1], [7, 7, 7]), ([5], [1]),
    )  # fmt: skip
    assert each(tau(student, teacher)) == pytest.approx([1, -1, 0, 1 / 3, NAN, NAN], nan_ok=True)


def test_kl_is_over_the_documents_that_are_there() -> None:
    student, teacher = sides(([0, 0], [math.log(3), 0]), ([1, 2, 3, 4], [1, 2, 3, 4]), ([5], [1]))
    expected = [0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0, NAN]
    assert each(kl(student, teacher)) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_spread_does_not_see_padding() -> None:
    scores, _ = sides(([0, 2], [0, 0]), ([7, 7, 7], [0, 0, 0]), ([4], [0]))
    assert spread(scores).tolist() == [1, 0, 0]


# --- what changes nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORED)
def test_order_of_documents_padding_and_offset(name: str) -> None:
    plain = each(SCORED[name](Ranking.of(*tables(TIED)), 3, None))
    turned = [([score + 5 for score in scores[::-1]], grades[::-1]) for scores, grades in TIED]
    assert each(SCORED[name](Ranking.of(*tables(turned, width=11)), 3, None)) == pytest.approx(plain, nan_ok=True)


def test_a_score_that_is_no_number_ranks_last() -> None:
    scores, grades = tables([([NAN, 1.0, 2.0], [1, 0, 0])])
    assert mrr(Ranking.of(scores, grades), 10, None).value == pytest.approx(1 / 3)


def test_queries_without_a_relevant_document_alone_have_no_score() -> None:
    ranking = Ranking.of(*tables([([1.0, 2.0], [0, 0])]))
    assert math.isnan(ndcg(ranking, 3, exponential=True).value) and not ranking.graded.any()
