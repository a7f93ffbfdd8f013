"""The bootstrap's scores against scikit-learn, torchmetrics and formulas by hand, each on brute-force resamples of the rows."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score, recall_score
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from mangakd.core.spec import Head
from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import Estimate, Statistic, bootstrap, draws
from mangakd.evaluation.statistics import Answers
from mangakd.tasks.classification.judge import ClassificationJudge

ROWS, CLASSES, RESAMPLES, SEED = 90, 7, 40, 3
RARE = np.array([False, False, False, False, True, True, False])
TOLERANCE = 2e-5  # sums over rows are fp32


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(teacher, student, targets): class 5 is so rare that resamples miss it, class 6 is neither there nor said."""
    rng = np.random.default_rng(0)
    targets = rng.choice(CLASSES, ROWS, p=[0.3, 0.3, 0.2, 0.15, 0.04, 0.01, 0])
    teacher = 2 * np.eye(CLASSES)[targets] + rng.normal(size=(ROWS, CLASSES)) - 10 * (np.arange(CLASSES) == 6)
    return teacher, (teacher + rng.normal(size=(ROWS, CLASSES))).astype(np.float32), targets


def by_hand(teacher: np.ndarray, student: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Every score of one (resampled) set of rows, by other people's code."""
    said, q = student.argmax(-1), softmax(student.astype(np.float64), -1)
    log_p, log_q = log_softmax(teacher, -1), log_softmax(student.astype(np.float64), -1)
    held = np.isin(targets, np.flatnonzero(RARE))
    return {
        "accuracy": accuracy_score(targets, said),
        "macro_f1": f1_score(targets, said, average="macro"),
        "ece": float(multiclass_calibration_error(torch.from_numpy(q), torch.from_numpy(targets), CLASSES, n_bins=15)),
        "rare_accuracy": accuracy_score(targets[held], said[held]) if held.any() else np.nan,
        "agreement": (said == teacher.argmax(-1)).mean(),
        "kl": (np.exp(log_p) * (log_p - log_q)).sum(-1).mean(),
        "entropy": -(q * log_q).sum(-1).mean(),
    }


def as_sums(teacher: np.ndarray, student: np.ndarray, targets: np.ndarray) -> dict[str, Statistic]:
    t, s = (Answers(logits, targets, several=targets.ndim == 2) for logits in (teacher, student))
    return {
        "accuracy": statistics.accuracy(s),
        "macro_f1": statistics.macro_f1(s),
        "ece": statistics.ece(s),
        "rare_accuracy": statistics.rare_accuracy(s, RARE),
        "agreement": statistics.agreement(t, s),
        "kl": statistics.mean(statistics.divergence(t, s)),
        "entropy": statistics.mean(s.entropy),
    }


def known_values(teacher: np.ndarray, student: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """What metrics.json holds."""
    head = Head("labels", CLASSES, several=targets.ndim == 2)
    return ClassificationJudge().values(head, {"logits": student}, {"labels": targets}, {"logits": teacher})


def test_equal_a_loop_over_the_same_resamples(world: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    found = bootstrap(as_sums(*world), RESAMPLES, SEED)
    assert {name: e.value for name, e in found.items()} == pytest.approx(by_hand(*world), abs=TOLERANCE)
    counts = np.concatenate(list(draws(ROWS, RESAMPLES, SEED)))
    loop = [by_hand(*(x[np.repeat(np.arange(ROWS), count)] for x in world)) for count in counts]
    for name, estimate in found.items():
        np.testing.assert_allclose(estimate.draws, [one[name] for one in loop], atol=TOLERANCE, err_msg=name)


def test_a_resample_draws_as_many_rows_with_replacement_and_the_seed_decides() -> None:
    counts = np.concatenate(list(draws(50, 2000, 1)))
    assert counts.shape == (2000, 50) and (counts.sum(-1) == 50).all()
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.05), "binomial: with replacement, each row alike"
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.12)
    assert np.array_equal(counts, np.concatenate(list(draws(50, 2000, 1))))
    assert not np.array_equal(counts, np.concatenate(list(draws(50, 2000, 2))))


def test_resamples_in_several_pieces_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mangakd.evaluation.bootstrap._CELLS", 70)
    pieces = list(draws(10, 23, 0))
    assert [len(piece) for piece in pieces] == [7, 7, 7, 2]
    assert all((piece.sum(-1) == 10).all() for piece in pieces)


def test_an_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(5, 2, 2000)
    found = bootstrap({"mean": statistics.mean(values)}, 4000)["mean"]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_differences_are_paired() -> None:
    """Two models that are right on the same hard rows differ by little, though each alone is uncertain."""
    rng = np.random.default_rng(0)
    one = rng.random(400) < 0.7
    other = one.copy()
    other[np.flatnonzero(~one)[:20]] = True
    found = bootstrap({"one": statistics.mean(one), "other": statistics.mean(other)}, 2000)
    low, high = (found["other"] - found["one"]).interval
    assert 0.025 < low < 0.05 < high < 0.075, "20 of 400 rows"
    assert found["one"].interval[1] - found["one"].interval[0] > 0.08
    ratio = found["one"] / found["other"]
    assert ratio.value == one.mean() / other.mean() and ratio.interval[1] < 1


def test_an_interval_holds_its_value_though_ece_grows_under_resampling() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1500, 5)) * 1.5
    targets = (softmax(logits, -1).cumsum(-1) > rng.random((1500, 1))).argmax(-1)  # calibrated by construction
    found = bootstrap({"ece": statistics.ece(Answers(logits, targets))}, 1000)["ece"]
    assert (found.draws > found.value).mean() > 0.85, "the plain percentile interval hardly holds it"
    ends = np.percentile(found.draws, [2.5, 97.5]) - found.draws.mean() + found.value
    assert found.interval == pytest.approx(tuple(ends))
    assert 0 <= found.interval[0] < found.value < found.interval[1]


def test_intervals_stay_within_what_a_score_can_be() -> None:
    draws = np.array([0.9, 0.95, 1.0, 1.0])
    assert Estimate(1.0, draws, (0.0, 1.0)).interval[1] == 1.0
    assert (Estimate(0.5, draws, (0.0, 1.0)) * 100).bounds == (0.0, 100.0)
    assert np.isnan(Estimate(np.nan, np.full(4, np.nan)).interval).all()


@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_values_are_those_of_the_metrics(scale: float) -> None:
    """The report shows what metrics.json holds."""
    rng = np.random.default_rng(1)
    teacher, student = (rng.normal(size=(200, CLASSES)).astype(np.float32) * np.float32(scale) for _ in range(2))
    targets = np.where(rng.random(200) < 0.5, student.argmax(-1), 0)
    found = {name: e.value for name, e in bootstrap(as_sums(teacher, student, targets), 2).items()}
    known = known_values(teacher, student, targets)
    assert {name: found[name] for name in known} == pytest.approx(known, abs=TOLERANCE)


def test_several_labels() -> None:
    rng = np.random.default_rng(2)
    teacher, student = rng.normal(size=(80, CLASSES)) * 2, (rng.normal(size=(80, CLASSES)) * 2).astype(np.float32)
    targets = ((student > 0) ^ (rng.random(student.shape) < 0.2)).astype(np.float32)
    found = bootstrap(as_sums(teacher, student, targets), 5, SEED)
    known = known_values(teacher, student, targets)
    assert {name: found[name].value for name in known} == pytest.approx(known, abs=TOLERANCE)
    p = expit(student.astype(np.float64))
    assert found["entropy"].value == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(-1).mean())
    recall = recall_score(targets[:, RARE], student[:, RARE] > 0, average="micro")
    assert found["rare_accuracy"].value == pytest.approx(recall)
    counts = next(draws(80, 5, SEED))[0]
    i = np.repeat(np.arange(80), counts)
    cells = torch.from_numpy(p[i].ravel()), torch.from_numpy(targets[i].ravel().astype(int))
    assert found["ece"].draws[0] == pytest.approx(float(binary_calibration_error(*cells, n_bins=15)), abs=TOLERANCE)
