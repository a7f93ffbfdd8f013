"""Scores against scikit-learn and against formulas written out in float64 numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score

from mangakd.evaluation.metrics import multi_label_metrics, single_label_metrics

ROWS, CLASSES = 300, 7
TOLERANCE = 2e-6  # torchmetrics computes in fp32, and 6 decimals are kept


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
    found = single_label_metrics(*as_tensors(student, targets, teacher))
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
    found = multi_label_metrics(*as_tensors(student, targets, teacher))
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
    found = single_label_metrics(logits, targets, logits)
    assert found["accuracy"] == 0.92 and found["agreement"] == 1.0 and found["kl"] == 0.0
    many = multi_label_metrics(torch.where(logits > 0, 1.0, -1.0), torch.tensor([[1, 0]]).expand(200, 2))
    assert many["accuracy"] == 0.92


def test_logits_that_look_like_probabilities_are_logits() -> None:
    """Every row lies in [0, 1], where torchmetrics would take it for probabilities."""
    rng = np.random.default_rng(3)
    student = rounded(rng.random((ROWS, CLASSES)))
    targets = student.argmax(-1)
    found = single_label_metrics(*as_tensors(student, targets))
    assert found["ece"] == pytest.approx(calibration_error(softmax(student, -1).max(-1), np.ones(ROWS)), abs=TOLERANCE)
    many = multi_label_metrics(*as_tensors(student, np.ones_like(targets)[:, None].repeat(CLASSES, 1)))
    assert many["accuracy"] == 1.0, "every logit is above 0, so every label is on"


def test_without_a_teacher_there_is_nothing_to_agree_with() -> None:
    found = single_label_metrics(torch.eye(3), torch.arange(3))
    assert set(found) == {"accuracy", "macro_f1", "ece"} and found["accuracy"] == 1.0
    assert all(type(value) is float for value in found.values())
