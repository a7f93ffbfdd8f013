"""Scores of embeddings against SciPy, brute force over the orders of ties, and values by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.evaluation.judge import Arrays
from mangakd.evaluation.predictions import Predictions
from mangakd.tasks.embedding import scores
from mangakd.tasks.embedding.judge import EmbeddingJudge

HEAD, RNG = Head("vector", 0), np.random.default_rng(0)


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def truth(
    labels: list[int] | None = None, score: list[float] | None = None, count: int = 0, **keys: list[int]
) -> Arrays:
    count = count or len(labels or score or ())
    return {
        "labels": np.array(labels or [-100] * count),
        "score": np.array(score or [math.nan] * count, dtype=np.float32),
        "anchor_key": np.array(keys.get("anchors", range(count))),
        "positive_key": np.array(keys.get("positives", range(100, 100 + count))),
    }


# --- rank correlation ------------------------------------------------------------------------------------------------


def test_spearman_equals_scipy_s_with_ties_and_on_resamples() -> None:
    x, y = RNG.integers(0, 6, 60).astype(float), RNG.integers(0, 4, 60) + RNG.normal(size=60).round(1)
    rows = RNG.random(60) < 0.8
    statistic = scores.spearman(x, y, rows)
    assert statistic.value == pytest.approx(spearmanr(x[rows], y[rows]).statistic, abs=1e-12)
    counts = np.stack([RNG.multinomial(60, np.full(60, 1 / 60)) for _ in range(5)])
    expected = [spearmanr(np.repeat(x[rows], c[rows]), np.repeat(y[rows], c[rows])).statistic for c in counts]
    np.testing.assert_allclose(statistic.score(counts), expected, atol=1e-12)


def test_a_rank_correlation_has_an_interval_and_pairs_with_sums() -> None:
    y = RNG.normal(size=200)
    near, far = y + RNG.normal(size=200), y + 3 * RNG.normal(size=200)
    every = np.ones(200, bool)
    found = bootstrap({"near": scores.spearman(near, y, every), "far": scores.spearman(far, y, every),
                       "mean": scores.mean(y, every)}, 400)  # fmt: skip
    low, high = found["near"].interval
    assert low < found["near"].value < high and high - low < 0.3
    assert (found["near"] - found["far"]).interval[0] > 0
    assert found["mean"].value == pytest.approx(y.mean())
    assert math.isnan(scores.spearman(np.ones(200), y, every).value), "a constant has no correlation"


# --- retrieval -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "k"), [("recall", 1), ("recall", 3), ("mrr", 3), ("ndcg", 10)])
@pytest.mark.parametrize(("better", "tied"), [(0, 0), (0, 2), (1, 3), (2, 0), (3, 1), (9, 4), (20, 0)])
def test_expected_gains_equal_the_mean_over_all_orders_of_the_ties(gain: str, k: int, better: int, tied: int) -> None:
    orders = list(itertools.permutations(range(tied + 1)))
    ranks = np.array([better + 1 + order.index(0) for order in orders], dtype=float)
    values = {"recall": 1.0, "mrr": 1 / ranks, "ndcg": 1 / np.log2(1 + ranks)}[gain] * (ranks <= k)
    found = scores.expected(gain, k, np.array([better]), np.array([tied]))
    assert found[0] == pytest.approx(values.mean(), abs=1e-12)


def test_places_by_brute_force_with_repeated_texts() -> None:
    anchors, positives = unit(40, 5), unit(40, 5, seed=1)
    anchor_keys, positive_keys = RNG.integers(0, 25, 40), RNG.integers(100, 120, 40)
    for keys, vectors in ((anchor_keys, anchors), (positive_keys, positives)):
        for key in set(keys.tolist()):
            vectors[keys == key] = vectors[keys == key][0]
    better, tied = scores.places(anchors, positives, anchor_keys, positive_keys)
    for i in range(40):
        own = set(positive_keys[anchor_keys == anchor_keys[i]].tolist()) - {positive_keys[i]}
        others = {
            key: positives[positive_keys == key][0] for key in set(positive_keys.tolist()) - own - {positive_keys[i]}
        }
        mine = anchors[i] @ positives[i]
        assert better[i] == sum(anchors[i] @ vector > mine + 1e-9 for vector in others.values())
        assert tied[i] == 0


def test_equal_vectors_of_different_texts_are_ties() -> None:
    same = np.repeat(unit(1, 6), 30, axis=0)
    judge = EmbeddingJudge("recall@1")
    values = judge.values(HEAD, {"anchor": same, "positive": same}, truth([1] * 30))
    assert values["recall@1"] == pytest.approx(1 / 30) and values["mean_cosine"] == pytest.approx(1.0)
    assert values["recall@10"] == pytest.approx(1 / 3)
    assert judge.chance(HEAD, truth([1] * 30))["recall@1"] == pytest.approx(1 / 30)
    assert EmbeddingJudge("mrr@10").chance(HEAD, truth([1] * 30))["mrr@10"] == pytest.approx(
        sum(1 / r for r in range(1, 11)) / 30
    )


# --- the judge -------------------------------------------------------------------------------------------------------


def test_mean_cosine_and_likeness_by_brute_force() -> None:
    own, other = ({"anchor": unit(9, 4, seed=s), "positive": unit(9, 4, seed=s + 1)} for s in (0, 5))
    values = EmbeddingJudge().values(HEAD, own, truth(score=[i / 9 for i in range(9)]), other)
    cosines = own["anchor"] @ own["anchor"].T
    assert values["mean_cosine"] == pytest.approx((cosines.sum() - 9) / 72)
    both = [(side["anchor"] * side["positive"]).sum(1) for side in (own, other)]
    assert values["likeness"] == pytest.approx(spearmanr(*both).statistic)
    assert set(values) == {"spearman", "mean_cosine", "likeness"}


def test_fewer_dimensions_are_cut_then_normalised_and_the_teacher_s_pca_stands_beside() -> None:
    dims, score = (3, 1), [i % 7 / 7 for i in range(60)]
    judge = EmbeddingJudge(dims=dims)
    answers = {"anchor": RNG.normal(size=(60, 5)), "positive": RNG.normal(size=(60, 5))}
    values = judge.values(HEAD, answers, truth(score=score))
    for size in dims:
        a, p = (answers[name][:, :size] for name in ("anchor", "positive"))
        cosines = (a * p).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(p, axis=1)
        assert values[f"spearman_{size}"] == pytest.approx(spearmanr(cosines.round(9), np.float32(score)).statistic)
    assert (
        "spearman_3" in judge.monitors and "spearman_pca_3" in judge.scores and "spearman_pca_3" not in judge.monitors
    )
    texts = ["a"] * 60
    test = Predictions(HEAD, texts, truth(score=score), {"teacher": answers, "student": answers})
    known = {name: RNG.normal(size=(60, 5)) * [1, 5, 2, 1, 1] for name in answers}
    validation = Predictions(HEAD, texts, truth(score=score), {"teacher": known, "student": known})
    statistics = judge.details(test, validation).statistics
    assert set(statistics) == {("teacher", "spearman_pca_3"), ("teacher", "spearman_pca_1")}
    fitted = np.concatenate([each / np.linalg.norm(each, axis=1, keepdims=True) for each in known.values()])
    _, _, directions = np.linalg.svd(fitted - fitted.mean(0), full_matrices=False)
    sides = [
        (each / np.linalg.norm(each, axis=1, keepdims=True) - fitted.mean(0)) @ directions[:3].T
        for each in answers.values()
    ]
    cosines = (sides[0] * sides[1]).sum(1) / np.linalg.norm(sides[0], axis=1) / np.linalg.norm(sides[1], axis=1)
    expected = spearmanr(cosines, np.float32(score)).statistic
    assert statistics["teacher", "spearman_pca_3"].value == pytest.approx(expected)
    assert not judge.details(test).statistics, "nothing to fit it on"


def test_an_unknown_monitor_is_told_with_those_that_are_near() -> None:
    with pytest.raises(UserError, match=r"task\.monitor='spearmen' is no score of embeddings; did you mean spearman"):
        EmbeddingJudge("spearmen")
    with pytest.raises(UserError, match="is no score"):
        EmbeddingJudge("spearman_64")
    assert EmbeddingJudge("spearman_64", [64]).chance(HEAD, truth(score=[0.0])) == {"spearman_64": 0.0}
