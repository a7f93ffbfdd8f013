"""The variant that ships, on answers made by hand: how many rows each gets right, how fast and how large it is."""

import numpy as np
import pytest

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation.judge import Score
from mangakd.export.choose import SCORES, Choice, choose, cosine, likeness, pearson
from mangakd.export.company import compare
from mangakd.export.measure import Measurement

ROWS = 1000
TARGETS = np.arange(ROWS) % 2
FP32 = ["fp32"]
HEAD, SEVERAL, SCORES_OF_2, VECTOR = (
    Head.of_labels("ab"),
    Head.of_labels("ab", several=True),
    Head("score", 2),
    Head("vector", 2),
)


def right_on(rows: int) -> np.ndarray:
    """Logits (N, 2) that are right on the first `rows` rows."""
    said = np.where(np.arange(ROWS) < rows, TARGETS, 1 - TARGETS)
    return np.eye(2, dtype=np.float32)[said]


def variant(name: str, rows: int, ms: float, mb: float = 10.0, batch_ms: float | None = None) -> Measurement:
    """batch_ms: as long as a text alone, where it is not given."""
    said, times = right_on(rows), {32: {"p50": ms / 2}, 64: {"p50": ms}, 128: {"p50": 3 * ms}}
    return Measurement(name, said, mb, 0.1, 100.0, compare(said, said, 0.0, HEAD), times, batch_ms or ms)


def measured(outputs: np.ndarray, head: Head) -> Measurement:
    return Measurement("v", outputs, 1, 1, 1, compare(outputs, outputs, 0.0, head), {32: {"p50": 1.0}}, 1.0)


def chosen(*variants: Measurement, **options: object) -> Choice:
    return choose(variants, FP32, right_on(900), HEAD, TARGETS, **options)  # type: ignore[arg-type]


def test_the_fastest_that_loses_no_more_than_the_limit() -> None:
    found = chosen(variant("fp32", 900, 20), variant("good", 898, 10), variant("bad", 896, 5), variant("slow", 900, 15))
    assert found.name == "good"
    assert [each.passed for each in found.comparisons] == [True, True, False, True]
    assert [round(each.drop.value, 9) for each in found.comparisons] == [0.0, 0.2, 0.4, 0.0]
    # Two rows of 1000 differ. The quantiles of a binomial (1000, 0.002) are 0 rows and 5 rows.
    assert found.comparisons[1].drop.interval == pytest.approx((0.0, 0.5), abs=1e-9)
    assert found.comparisons[0].drop.interval == pytest.approx(
        (0.0, 0.0), abs=1e-9
    )  # paired: 900 of 1000 alone would have ±1.9
    assert "good loses 0.20 points [0.00, 0.50]" in found.reason and "0.3" in found.reason
    assert found.comparisons[1].agreement_student == pytest.approx(0.998) and found.comparisons[1].difference == 1.0


def test_of_a_score_where_lower_is_better_the_drop_is_what_the_variant_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, "accuracy", Score("mistakes", "{:.1%}", "lower"))
    choice = chosen(variant("fp32", 900, 20), variant("more", 904, 5), variant("fewer", 890, 10))
    assert choice.name == "fewer" and "fewer gains 1.00 points" in choice.reason
    assert [each.passed for each in choice.comparisons] == [True, False, True]


def test_a_variant_that_is_better_than_the_student_gains() -> None:
    found = chosen(variant("fp32", 900, 20), variant("int8", 902, 10))
    assert "int8 gains 0.20 points [0.00, 0.50]" in found.reason


def test_latency_and_time_in_batches_count_alike() -> None:
    """The geometric mean: 2 ms alone and 8 in batches are 4, as fast as 4 and 4, slower than 3 and 3."""
    lone = variant("lone", 900, 2, mb=5, batch_ms=8)
    assert chosen(lone, variant("even", 900, 4)).name == "lone", "as fast, and smaller"
    assert chosen(lone, variant("even", 900, 3)).name == "even"


def test_of_equally_fast_ones_the_smallest() -> None:
    pair = variant("fast", 900, 10.0, mb=40), variant("small", 900, 10.4, mb=20)
    assert chosen(*pair).name == "small"
    assert chosen(pair[0], variant("small", 900, 10.6, mb=20)).name == "fast"


def test_where_nothing_passes_fp32_ships_and_the_reason_says_so() -> None:
    found = chosen(variant("fp32", 890, 20), variant("int8", 880, 5))
    assert found.name == "fp32"
    assert "No variant passes" in found.reason and "int8 loses 2.00 points" in found.reason
    with pytest.raises(UserError, match=r"int8 loses 2\.00 points.*onnx_fp32"):
        chosen(variant("int8", 880, 5))


def test_the_limit_is_the_caller_s() -> None:
    pair = variant("fp32", 900, 20), variant("int8", 880, 5)
    assert chosen(*pair, max_drop=2.0).name == "int8" and chosen(*pair, max_drop=1.9).name == "fp32"


def test_what_is_not_a_number_never_ships() -> None:
    broken = variant("int8", 900, 5)
    broken.outputs[-1] = np.nan  # the student is wrong there too
    assert chosen(variant("fp32", 900, 20), broken).name == "fp32"
    broken = variant("fp32", 900, 20)
    broken.outputs[0] = np.nan
    with pytest.raises(UserError, match="no variant passes"):
        chosen(broken, variant("int8", 880, 5))


def test_where_nothing_passes_fp32_ships_only_where_it_answers_in_numbers() -> None:
    broken, other = variant("fp32", 900, 5), variant("int8", 800, 10)
    broken.outputs[3] = np.nan
    with pytest.raises(UserError, match=r"none in fp32 can ship: fp32 answers some texts with NaN or infinity"):
        chosen(broken, other)


def test_agreement_with_the_teacher_is_said() -> None:
    found = chosen(variant("fp32", 900, 20), teacher=right_on(950))
    assert found.comparisons[0].agreement_teacher == pytest.approx(0.95)
    written = found.comparisons[0].metrics()
    assert written["accuracy"] == pytest.approx(0.9) and written["latency_ms"]["64"] == {"p50": 20}
    assert written["passed"] is True and written["drop_interval"] == pytest.approx([0, 0])


def test_rows_of_another_split_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        choose([variant("fp32", 900, 20)], FP32, right_on(900)[:-1], HEAD, TARGETS[:-1])


def test_several_labels_count_as_whole_sets() -> None:
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=np.float32)
    student = targets * 2 - 1
    worse = student.copy()
    worse[0, 1] = 1
    made = measured(worse.astype(np.float32), SEVERAL)
    (found,) = choose([made], ["v"], student, SEVERAL, targets, resamples=50).comparisons
    assert found.score.value == 0.75 and found.drop.value == 25.0 and found.agreement_student == 0.75


def test_regression_is_scored_by_pearson() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(200, 2)) * 5 + 1000  # far from 0, where sums of squares lose digits
    student = (targets + rng.normal(size=targets.shape)).astype(np.float32)
    noisy = (student + rng.normal(size=targets.shape)).astype(np.float32)
    made = measured(noisy, SCORES_OF_2)
    (found,) = choose([made], ["v"], student, SCORES_OF_2, targets, resamples=50).comparisons

    def reference(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(one[:, c], other[:, c])[0, 1] for c in range(2)]))

    assert found.score.value == pytest.approx(reference(noisy.astype(np.float64), targets), abs=1e-6)
    drop = reference(student.astype(np.float64), targets) - reference(noisy.astype(np.float64), targets)
    assert found.drop.value == pytest.approx(100 * drop, abs=1e-4)
    one = pearson(student[:, :1], targets[:, 0])  # a single value a row may come without its axis
    assert one.score(one.features.sum(0)) == pytest.approx(np.corrcoef(student[:, 0], targets[:, 0])[0, 1], abs=1e-6)


def test_embeddings_are_scored_by_their_cosine_to_the_student() -> None:
    student = np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    turned = np.array([[1.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    made = measured(turned, VECTOR)
    (found,) = choose([made], ["v"], student, VECTOR, None, resamples=50).comparisons
    assert found.score.value == pytest.approx((1 + np.sqrt(0.5)) / 2) and not found.passed
    assert cosine(student, student) == pytest.approx([1, 1]) and likeness(VECTOR, student, student) == pytest.approx(1)
