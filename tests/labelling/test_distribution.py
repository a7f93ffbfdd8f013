"""Probabilities of choices out of tokens' log-probabilities: golden values by hand."""

from math import log
from typing import Any

import pytest

from mangakd.labelling.forms.distribution import distribution

ABC = ("A", "B", "C")


def step(**tokens: float) -> dict[str, float]:
    """token → log of its probability; _ stands for a blank."""
    return {token.replace("_", " "): log(p) for token, p in tokens.items()}


def close(values: tuple[float, ...], wanted: list[float]) -> bool:
    return values == pytest.approx(wanted, abs=1e-12)


def test_masses_are_divided_by_their_sum_and_the_rest_is_missing() -> None:
    """0.5 + 0.1, 0.2 and 0 of 0.8: the blank belongs to no letter, `The` is another word, 0.05 was not listed."""
    result = distribution(ABC, [step(A=0.5, _A=0.1, B=0.2, The=0.15)], "A")
    assert result is not None and close(result.probabilities, [0.75, 0.25, 0.0])
    assert result.missing == pytest.approx(0.2)


def test_a_token_that_begins_one_name_belongs_to_it() -> None:
    result = distribution(("refund", "order"), [step(ref=0.3, _re=0.2, ord=0.4, o=0.1)], "refund")
    assert result is not None and close(result.probabilities, [0.5, 0.5])
    assert result.missing == pytest.approx(0.0, abs=1e-12)


def test_the_next_token_decides_where_one_begins_several() -> None:
    """p(order_status) = 0.8 · 0.75, p(order_cancel) = 0.8 · 0.2, p(refund) = 0.1; 0.8 · 0.05 and 0.1 are missing."""
    names = ("order_status", "order_cancel", "refund")
    steps = [step(order=0.8, refund=0.1), {"_status": log(0.75), "_cancel": log(0.2), "ing": log(0.05)}]
    result = distribution(names, steps, "order_status")
    assert result is not None and close(result.probabilities, [0.6 / 0.86, 0.16 / 0.86, 0.1 / 0.86])
    assert result.missing == pytest.approx(0.14)


def test_a_shared_token_that_was_not_written_is_missing() -> None:
    """`order` was not written, so that nothing says how its 0.4 is shared."""
    result = distribution(("order_status", "order_cancel", "refund"), [step(refund=0.6, order=0.4)], "refund")
    assert result is not None and close(result.probabilities, [0.0, 0.0, 1.0])
    assert result.missing == pytest.approx(0.4)


def test_the_next_token_says_nothing_of_a_token_that_was_not_written() -> None:
    """` status` follows `refund`, which was written, and not `order`."""
    steps = [step(refund=0.6, order=0.4), {"_status": log(0.9), " status": log(0.1)}]
    result = distribution(("order_status", "order_cancel", "refund"), steps, "refund")
    assert result is not None and close(result.probabilities, [0.0, 0.0, 1.0])
    assert result.missing == pytest.approx(0.4)


def test_the_longest_token_that_fits_was_written() -> None:
    """`order`, not the likelier `ord`: 0.3 · 0.9 and 0.3 · 0.1 of 0.3 + 0.2; the 0.5 of `ord` is missing."""
    steps = [step(ord=0.5, order=0.3, refund=0.2), {"_status": log(0.9), "_cancel": log(0.1)}]
    result = distribution(("order_status", "order_cancel", "refund"), steps, "order_status")
    assert result is not None and close(result.probabilities, [0.54, 0.06, 0.4])
    assert result.missing == pytest.approx(0.5)


def test_of_blanks_alone_the_likeliest_was_written() -> None:
    result = distribution(ABC, [{" ": log(0.7), "  ": log(0.2), "B": log(0.1)}, step(A=0.5, C=0.5)], " A")
    assert result is not None and close(result.probabilities, [0.35 / 0.8, 0.1 / 0.8, 0.35 / 0.8])


def test_the_longest_choice_that_a_token_holds_is_meant() -> None:
    result = distribution(("refund", "refund now"), [{"refund now.": log(0.75), "refund!": log(0.25)}], "refund now.")
    assert result is not None and close(result.probabilities, [0.25, 0.75])


def test_a_first_step_of_all_choices_is_shared_by_the_next() -> None:
    """`1` may go on as `12`: 0.6 · 0.5 each, and 0.4 of `12` itself."""
    steps = [step(**{"1": 0.6, "12": 0.4}), {"<|im_end|>": log(0.5), "2": log(0.5)}]
    result = distribution(("1", "12"), steps, "1")
    assert result is not None and close(result.probabilities, [0.3, 0.7])


def test_a_number_may_begin_another_number() -> None:
    """`1` was written; then its end (0.7) or a 2 (0.3)."""
    result = distribution(
        ("1", "12", "3"), [step(**{"1": 0.9, "3": 0.1}), {"<|im_end|>": log(0.7), "2": log(0.3)}], "1"
    )
    assert result is not None and close(result.probabilities, [0.63, 0.27, 0.1])


def test_blanks_and_quotes_before_the_answer_are_read_over() -> None:
    result = distribution(ABC, [step(_=1.0), {'"': log(0.9), "B": log(0.1)}, step(A=0.5, C=0.5)], ' "A"')
    assert result is not None and close(result.probabilities, [0.45, 0.1, 0.45])


def test_marks_after_a_letter_belong_to_it_and_other_words_do_not() -> None:
    result = distribution(ABC, [{"A.": log(0.3), "B)": log(0.3), "Ask": log(0.3), "a": log(0.1)}], "A.")
    assert result is not None and close(result.probabilities, [0.5, 0.5, 0.0])
    assert result.missing == pytest.approx(0.4)


def test_whole_choices_are_probabilities_as_they_are() -> None:
    """exp of the log-probabilities 0.3 and 0.1 add up to 0.4; `1` is no prefix of `12` here."""
    result = distribution(("1", "12"), [step(**{"1": 0.3, "12": 0.1})], "1")
    assert result is not None and close(result.probabilities, [0.75, 0.25]) and result.missing == pytest.approx(0.6)


@pytest.mark.parametrize("steps", [[], [step(The=1.0)], [{}]])
def test_no_probability_of_a_choice_is_none(steps: Any) -> None:
    assert distribution(ABC, steps, "The") is None


def test_rounded_numbers_above_one_are_not_missing_less_than_nothing() -> None:
    result = distribution(ABC, [step(A=0.7, B=0.3000001)], "A")
    assert result is not None and result.missing == 0.0
