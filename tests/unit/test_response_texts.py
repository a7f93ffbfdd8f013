"""Scores of written texts: golden values, properties, and texts that are empty, of other scripts or of punctuation alone."""

import math
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangakd.tasks.texts import exact_match, final_answer, grounded, repetition, rouge_l, words

TEXTS = st.one_of(
    st.text(max_size=40), st.lists(st.sampled_from(["a", "the", "東京", "#### 3", "1,000", "ไทย", "."])).map(" ".join)
)
SCORES = {
    "exact_match": exact_match, "rouge_l": rouge_l, "final_answer": final_answer,
    "repetition": lambda text, reference: repetition(text), "grounded": lambda text, reference: grounded(text, [reference]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [  # computed with rouge-score 0.1.2, rougeL without stems
        ("the cat sat on the mat", "the cat is on the mat", 0.8333333333333334),
        ("Your order ships on Monday.", "It ships on Monday, your order.", 0.5454545454545454),
        ("a b c d", "d c b a", 0.25),
        ("Don't refund: $1,234.50!", "don't REFUND 1,234.50", 1.0),
        ("x", "the whole answer is longer than this", 0.0),
        ("", "something", 0.0),
        ("one two three four five six seven", "two four six eight ten seven one", 0.5714285714285714),
        # which drops other scripts
        ("東京へ行く", "東京に行く", 0.8),
        ("…", "東京", 0.0),
        ("Straße", "STRASSE", 1.0),
    ],
)
def test_rouge_l(text: str, reference: str, score: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        ("So 6 * 7 = 42.\n#### 42", "6*7=<<6*7=42>>42\n#### 42", 1),
        ("The answer is 42 dollars.", "#### 42", 1),
        ("It costs $1,234.50", "#### 1234.5", 1),
        ("１，２３４円", "#### 1,234", 1),
        ("-7", "#### \u22127", 1),
        ("a loss of -$7", "#### -7", 1),
        ("10-3", "#### 3", 1),
        ("half: 1/2", "#### 0.5", 1),
        ("7 / 0", "#### 0", 1),
        ("50 %", "#### 50", 1),
        ("1e3", "#### 1000", 1),
        ("1, 2, 3", "#### 3", 1),
        ("#### 41 or 42", "#### 41", 0),
        ("#### 41\n#### 42", "#### 42", 1),
        ("42 of 43", "#### 42", 0),
        ("no idea", "#### 42", 0),
        ("", "#### 42", 0),
        ("4,2", "#### 42", 0),
        ("it is 42", "42", 1),
        ("it is 42", "$42.00", 1),
        ("so #### Yes.", "Because. #### yes", 1),
        ("yes", "Because. #### yes", 1),
        ("yes 3", "Chapter 3 of the series", math.nan),
        ("3", "no number", math.nan),
        ("3", "", math.nan),
        ("9" * 5000, "#### " + "9" * 5000, 1),
        ("1e99999999999", "#### 3", 0),
        ("1/" + "3" * 5000, "#### 3", 0),
    ],
)
def test_final_answer(text: str, reference: str, score: float) -> None:
    assert final_answer(text, reference) == pytest.approx(score, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        (" It ships\n on Monday. ", "it ships on monday", 1),
        ("cafe\u0301", "Café", 1),
        ("はい。", "はい", 1),
        ("x = -5", "x = 5", 0),
        ("?!", "...", 0),
        ("", "", 1),
        ("", "a", 0),
    ],
)
def test_exact_match(text: str, reference: str, score: float) -> None:
    assert exact_match(text, reference) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("a b c d", 0),
        ("a b c", 0),
        ("", 0),
        ("?? !!", 0),
        ("no no no no no no", 2 / 3),
        ("a b c d a b c d", 1 / 5),
        ("は" * 7, 3 / 4),
    ],
)
def test_repetition(text: str, score: float) -> None:
    assert repetition(text) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "context", "score"),
    [
        ("The refund takes 5 days.", ["A refund takes five days", "or more."], 3 / 4),
        ("The refund takes 5 days.", ["REFUND: takes 5 days"], 1),
        ("It is what it is", ["refund"], math.nan),
        ("A refund", [], math.nan),
        ("A refund", ["", "…"], math.nan),
        ("", ["refund"], math.nan),
        ("東京", ["東京タワー"], 1),
    ],
)
def test_grounded(text: str, context: list[str], score: float) -> None:
    assert grounded(text, context) == pytest.approx(score, nan_ok=True)


def test_words_of_scripts_without_blanks_are_their_letters() -> None:
    assert words("Don't STOP! ﬁne हिन्दी") == ["don", "t", "stop", "fine", "हिन्दी"]
    assert words("東京タワー3回 กิน_x") == ["東", "京", "タ", "ワ", "ー", "3", "回", "กิ", "น", "x"]


@given(TEXTS, TEXTS)
def test_scores_are_shares(text: str, reference: str) -> None:
    for name, score in SCORES.items():
        value = score(text, reference)
        assert math.isnan(value) or 0 <= value <= 1, name


@given(TEXTS)
def test_a_text_is_its_own_best_answer(text: str) -> None:
    assert exact_match(text, f" {text} ") == 1
    assert not words(text) or rouge_l(text, text) == 1
    for value in (final_answer(text, text), grounded(text, [text])):
        assert math.isnan(value) or value == 1


@given(st.text("abc ", max_size=25), st.text("abc ", max_size=25))
def test_rouge_l_counts_the_longest_common_subsequence(text: str, reference: str) -> None:
    one, other = words(text), words(reference)

    @cache
    def common(i: int, k: int) -> int:
        if not (i and k):
            return 0
        equal = one[i - 1] == other[k - 1]
        return common(i - 1, k - 1) + 1 if equal else max(common(i - 1, k), common(i, k - 1))

    expected = 2 * common(len(one), len(other)) / (len(one) + len(other)) if other else math.nan
    assert rouge_l(text, reference) == pytest.approx(expected, nan_ok=True)
