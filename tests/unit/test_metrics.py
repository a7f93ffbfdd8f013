"""Scores against scikit-learn, against formulas written out in float64 numpy, and against values worked out by hand.

Each is computed twice, by the judge and by the meters that add up batches during validation: both must say the same.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score

from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.evaluation.statistics import Answers
from mangakd.tasks.classification.task import Classification

ROWS, CLASSES = 300, 7
TOLERANCE = 1e-12


def head_of(logits: Any, targets: Any) -> Head:
    return Head("labels", logits.shape[1], several=targets.ndim == 2)


def named(logits: Any, targets: Any, teacher: Any) -> list[Any]:
    """answers, truth and the teacher's answers, as a judge takes them."""
    return [{"logits": logits}, {"labels": targets}, None if teacher is None else {"logits": teacher}]


def metrics(logits: torch.Tensor, targets: torch.Tensor, teacher: torch.Tensor | None = None) -> dict[str, float]:
    """What a run writes to metrics.json, after a check that the meters, given batch after batch, say the same."""
    task, head = Classification(), head_of(logits, targets)
    sides = [side and {name: each.numpy() for name, each in side.items()} for side in named(logits, targets, teacher)]
    values = task.judge.values(head, *sides)
    meters = task.meters(head, teacher is not None, together=False)
    for rows in torch.arange(len(logits)).split(64):
        meters.update(*named(logits[rows], targets[rows], None if teacher is None else teacher[rows]))
    assert meters.values() == pytest.approx(values, abs=TOLERANCE)
    assert set(task.judge.statistics(head, *sides)) == set(task.judge.monitors) | (
        {"agreement", "kl"} if teacher is not None else set()
    )
    return values


@pytest.fixture(params=[0.3, 3.0, 30.0], ids=lambda scale: f"scale {scale}")
def logits(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, CLASSES)) * request.param, rng.normal(size=(ROWS, CLASSES)) * request.param


def single_targets(logits: np.ndarray) -> np.ndarray:
    """Class 5 never occurs and half of the rows are right."""
    rng = np.random.default_rng(1)
    right = rng.random(ROWS) < 0.5
    return np.where(right, logits.argmax(-1), rng.choice([0, 1, 2, 3, 4, 6], ROWS)) % 5


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Σ over bins of (share of rows) · |mean confidence − share right|."""
    place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1)
    return sum(
        (place == b).mean() * abs(confidence[place == b].mean() - right[place == b].mean())
        for b in range(bins)
        if (place == b).any()
    )


def as_tensors(*arrays: np.ndarray) -> list[Any]:
    return [torch.from_numpy(a if a.dtype == np.int64 else a.astype(np.float32)) for a in arrays]


def rounded(logits: np.ndarray) -> np.ndarray:
    return logits.astype(np.float32).astype(np.float64)


def test_single_label(logits: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = map(rounded, logits)
    targets = single_targets(student)
    found = metrics(*as_tensors(student, targets, teacher))
    said = student.argmax(-1)
    p, q = softmax(teacher, -1), softmax(student, -1)
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(targets, said),
            "macro_f1": f1_score(targets, said, average="macro"),
            "ece": calibration_error(q.max(-1), said == targets),
            "agreement": (said == teacher.argmax(-1)).mean(),
            "kl": (p * (log_softmax(teacher, -1) - log_softmax(student, -1))).sum(-1).mean(),
        },
        abs=TOLERANCE,
    )


def test_multi_label(logits: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = map(rounded, logits)
    targets = ((student > 0) ^ (np.random.default_rng(2).random(student.shape) < 0.1)).astype(np.int64)
    found = metrics(*as_tensors(student, targets, teacher))
    said = student > 0
    on = expit(teacher) * (np.log(expit(teacher)) - np.log(expit(student)))
    off = expit(-teacher) * (np.log(expit(-teacher)) - np.log(expit(-student)))
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(targets, said),
            "macro_f1": f1_score(targets, said, average="macro"),
            "ece": calibration_error(expit(student).ravel(), targets.ravel()),
            "agreement": (said == (teacher > 0)).all(-1).mean(),
            "kl": (on + off).sum(-1).mean(),
        },
        abs=TOLERANCE,
    )


def test_shares_look_exact() -> None:
    targets = torch.zeros(200, dtype=torch.long)
    logits = torch.zeros(200, 2)
    logits[:184, 0] = 1.0
    logits[184:, 1] = 1.0
    found = metrics(logits, targets, logits)
    assert found["accuracy"] == 0.92 and found["agreement"] == 1.0 and found["kl"] == 0.0
    many = metrics(torch.where(logits > 0, 1.0, -1.0), torch.tensor([[1, 0]]).expand(200, 2))
    assert many["accuracy"] == 0.92


def test_logits_that_look_like_probabilities_are_logits() -> None:
    """Every row lies in [0, 1], where some libraries take it for probabilities."""
    rng = np.random.default_rng(3)
    student = rounded(rng.random((ROWS, CLASSES)))
    targets = student.argmax(-1)
    found = metrics(*as_tensors(student, targets))
    assert found["ece"] == pytest.approx(calibration_error(softmax(student, -1).max(-1), np.ones(ROWS)), abs=TOLERANCE)
    many = metrics(*as_tensors(student, np.ones_like(targets)[:, None].repeat(CLASSES, 1)))
    assert many["accuracy"] == 1.0, "every logit is above 0, so every label is on"


def test_without_a_teacher_there_is_nothing_to_agree_with() -> None:
    found = metrics(torch.eye(3), torch.arange(3))
    assert set(found) == {"accuracy", "macro_f1", "ece"} and found["accuracy"] == 1.0
    assert all(type(value) is float for value in found.values())


# --- by hand ---------------------------------------------------------------------------------------------------------

INF = float("inf")


def scored(logits: list, targets: list, teacher: list | None = None) -> dict[str, float]:
    """What metrics.json holds, after a check that the report's bootstrap has the same values."""
    tensors = [None if x is None else torch.tensor(x, dtype=torch.float64) for x in (logits, teacher)]
    values = metrics(tensors[0], torch.tensor(targets), tensors[1])
    sides = named(*(None if x is None else np.array(x) for x in (logits, targets, teacher)))
    statistics = Classification().judge.statistics(head_of(np.array(logits), np.array(targets)), *sides)
    report = {name: estimate.value for name, estimate in bootstrap(statistics, 2).items()}
    assert values == {name: value for name, value in report.items() if not math.isnan(value)}
    return values


def test_several_labels_of_which_one_is_in_neither_answers_nor_targets() -> None:
    """Label 0 is right once, label 1 right once and wrongly on once, label 2 never there: (1 + 2/3) / 2, not / 3."""
    found = scored([[2.0, 1.0, -3.0], [-1.0, 1.0, -2.0]], [[1, 1, 0], [0, 0, 0]])
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2) == pytest.approx(0.8333, abs=1e-4)
    assert found["accuracy"] == 0.5


def test_one_label_of_which_some_are_in_neither_answers_nor_targets() -> None:
    """Class 0: 2 hits of 2 said and 3 true. Class 1: said once, never true. Classes 2 and 3 do not occur."""
    found = scored([[3.0, 0, 0, 0], [3.0, 0, 0, 0], [0, 3.0, 0, 0]], [0, 0, 0])
    assert found["macro_f1"] == pytest.approx((0.8 + 0) / 2) and found["accuracy"] == pytest.approx(2 / 3)


def test_empty_label_sets_count_as_answers() -> None:
    """Two rows without a label, one of them answered so."""
    found = scored([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]], [[0, 0], [0, 0], [1, 1]])
    assert found["accuracy"] == pytest.approx(2 / 3) and found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    nothing = scored([[-1.0, -1.0]], [[0, 0]])
    assert nothing["accuracy"] == 1 and "macro_f1" not in nothing, "no class occurs: there is no F1 to average"


def test_a_single_class_or_label() -> None:
    assert scored([[0.3], [-2.0]], [0, 0], [[1.0], [1.0]]) == {
        "accuracy": 1, "macro_f1": 1, "ece": 0, "agreement": 1, "kl": 0
    }  # fmt: skip
    found = scored([[0.0], [0.0]], [[1], [0]])
    assert found == {"accuracy": 0.5, "macro_f1": 0, "ece": 0}, (
        "a probability of exactly 1/2 is off, and well calibrated"
    )


def test_the_first_of_equal_logits_is_the_answer() -> None:
    found = scored([[1.0, 1.0, 0.0]] * 2, [0, 1], [[0.0, 1.0, 0.0], [2.0, 2.0, 2.0]])
    assert found["accuracy"] == 0.5 and found["agreement"] == 0.5


@pytest.mark.parametrize("edge", [k / 15 for k in range(1, 15)], ids=lambda edge: f"{15 * edge:.0f}")
def test_a_confidence_on_an_edge_belongs_to_the_upper_bin(edge: float) -> None:
    """Off at the edge, on beside it: gaps of opposite sign cancel in one bin and add up in two."""
    off, above, below = (math.log(p / (1 - p)) for p in (edge, edge + 0.02, edge - 0.02))
    assert scored([[off], [above]], [[0], [1]])["ece"] == pytest.approx(abs(2 * edge + 0.02 - 1) / 2)
    assert scored([[off], [below]], [[0], [1]])["ece"] == pytest.approx((edge + 1 - edge + 0.02) / 2)


@pytest.mark.parametrize("classes", [3, 5, 15])
@pytest.mark.parametrize("offset", [0.0, 0.1, 1 / 3, 7.7, -123.4])
def test_equal_logits_are_on_an_edge_however_they_are_rounded(classes: int, offset: float) -> None:
    near = 1 / classes + 0.01
    beside = [math.log(near), *[math.log((1 - near) / (classes - 1))] * (classes - 1)]
    found = scored([[offset] * classes, beside], [1, 0])["ece"]
    assert found == pytest.approx(abs(1 / classes + near - 1) / 2)


def test_full_confidence_is_in_the_last_bin() -> None:
    """0.99 right and 1.0 wrong share it: |0.99 − 1 + 1.0 − 0| / 2."""
    sure = [[math.log(0.99), math.log(0.01)], [1000.0, 0.0]]
    assert scored(sure, [0, 1])["ece"] == pytest.approx(0.99 / 2)


def test_a_class_that_is_ruled_out_adds_nothing_to_kl_and_entropy() -> None:
    """Student (1/2, 1/2, 0), teacher (3/4, 1/4, 0): a padded class must not turn the report to NaN."""
    student, teacher = [[0.0, 0.0, -INF]], [[math.log(3), 0.0, -INF]]
    kl, entropy = 0.75 * math.log(1.5) + 0.25 * math.log(0.5), math.log(2)
    assert scored(student, [0], teacher)["kl"] == pytest.approx(kl)
    assert Answers(np.array(student), np.array([0])).entropy == pytest.approx([entropy])
    assert scored([[0.0, 0.0, 5.0]], [0], [[0.0, 0.0, -INF]])["kl"] == pytest.approx(
        -math.log(1 / (2 + math.e**5)) - math.log(2)
    )
    assert scored([[0.0, -INF]], [0], [[0.0, 0.0]])["kl"] == INF, (
        "the student rules out what the teacher holds possible"
    )
    assert scored([[-2000.0, 0.0, -INF]], [0], [[-2000.0, 0.0, -3000.0]])["kl"] == 0, (
        "probabilities that underflow are 0"
    )


def test_a_label_that_is_ruled_out_adds_nothing_to_kl_and_entropy() -> None:
    student, teacher = [[-INF, 0.0, INF]], [[-INF, math.log(3), INF]]
    assert scored(student, [[0, 1, 1]], teacher)["kl"] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert Answers(np.array(student), np.array([[0, 1, 1]]), several=True).entropy == pytest.approx([math.log(2)])
