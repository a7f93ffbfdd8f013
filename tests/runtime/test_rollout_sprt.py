"""Wald's test: λ and its bounds by hand, α that is spent over all repetitions, and error rates as promised."""

import math
import random

import pytest

from mangakd.runtime.rollout.sprt import Hypotheses, Test

ONE = Hypotheses(f0=0.1, f1=0.3, alpha=0.05, beta=0.05)


def test_numbers_by_hand() -> None:
    """ln 3 = 1.0986 for a failure, ln(0.7 / 0.9) = −0.2513 for a success."""
    test = Test(ONE)
    assert [test.observe(failure) for failure in (True, False, True)] == [None] * 3
    assert test.llr == pytest.approx(1.945910, abs=1e-6) and (test.n, test.failures) == (3, 2)
    assert ONE.lower == pytest.approx(-2.995732, abs=1e-6)
    assert ONE.upper(1) == pytest.approx(3.493432, abs=1e-6)  # ln(π² / 6 / 0.05)
    assert ONE.upper(3) == pytest.approx(3.493432 + 2 * math.log(3), abs=1e-6)


def test_it_ends_where_the_bounds_are() -> None:
    """11.92 successes reach ln β, so 12; 3.18 failures reach ln(1 / α₁), so 4."""
    good, bad = Test(ONE), Test(ONE)
    assert [good.observe(False) for _ in range(12)] == [None] * 11 + ["H0"]
    assert (good.number, good.llr, good.n, good.passes) == (2, 0, 0, 1)
    assert [bad.observe(True) for _ in range(4)] == [None] * 3 + ["H1"]


def test_the_likelihood_ratio_is_a_martingale_under_h0() -> None:
    """What Ville's inequality needs: E[e^λ] = 1 at f0, and less below it."""
    for rate, most in ((ONE.f0, 1.0), (ONE.f0 / 2, 0.95)):
        assert rate * math.exp(ONE.failure) + (1 - rate) * math.exp(ONE.success) <= most + 1e-12


def test_alpha_is_spent_once_over_all_tests() -> None:
    spent = sum(math.exp(-ONE.upper(number)) for number in range(1, 200_000))
    assert spent == pytest.approx(ONE.alpha, rel=1e-4) and spent < ONE.alpha


def test_a_step_spends_a_test_that_was_not_finished() -> None:
    test = Test(ONE)
    test.begin_step()
    assert test.number == 1  # nothing was counted
    test.observe(True)
    test.begin_step()
    assert (test.number, test.llr, test.n, test.failures, test.passes) == (2, 0, 0, 0, 0)


@pytest.mark.parametrize(("rate", "low", "high"), [(0.1, 0.0, 0.05), (0.3, 0.95, 1.0)])
def test_false_alarms_and_misses_over_2000_questions(rate: float, low: float, high: float) -> None:
    """At f0 an alarm at any time, through some 90 repetitions, in at most 5 % of the runs; at f1 one nearly always."""
    chance, alarms, runs = random.Random(0), 0, 300
    for _ in range(runs):
        test = Test(ONE)
        alarms += any(test.observe(chance.random() < rate) == "H1" for _ in range(2000))
    assert low <= alarms / runs <= high


def test_it_goes_on_from_its_numbers() -> None:
    first, second = Test(ONE), Test(ONE)
    for failure in (False, True, False):
        first.observe(failure)
    second.restore(first.numbers())
    assert second.numbers() == first.numbers() and second.llr == pytest.approx(first.llr, abs=1e-6)
