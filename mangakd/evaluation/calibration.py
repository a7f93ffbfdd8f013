"""How far confidence can be believed, and the one number that mends most of it.

Dividing logits by a temperature changes no answer, only how sure it is. It is refit on validation and judged on test: a
distilled student is often under-confident, because it was taught softened targets. Source: Guo et al. 2017,
On Calibration of Modern Neural Networks (arXiv:1706.04599).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from mangakd.evaluation.statistics import BINS, Answers, bin_of

COLDEST, HOTTEST = 0.05, 20.0  # a model without a mistake on validation would be made infinitely sure
_STEPS = 25  # golden-section steps: T to 0.01 %


def fitted_temperature(logits: np.ndarray, targets: np.ndarray, several: bool = False) -> float:
    """T with the smallest negative log-likelihood of the targets; 1.0 leaves the model as it is.

    The likelihood is convex in 1/T, so it has one minimum in log T, which a golden-section search finds without a gradient.
    """

    scores = logits.astype(np.float64)
    if several:
        signed = np.where(targets.astype(bool), scores, -scores)
        loss = partial(_binary_loss, signed)
    else:
        loss = partial(_loss, scores - scores.max(-1, keepdims=True), targets)
    return math.exp(_smallest(loss, math.log(COLDEST), math.log(HOTTEST)))


def _loss(scores: np.ndarray, targets: np.ndarray, log_temperature: float) -> float:
    scaled = scores * math.exp(-log_temperature)
    return float((np.log(np.exp(scaled).sum(-1)) - scaled[np.arange(len(scaled)), targets]).mean())


def _binary_loss(signed: np.ndarray, log_temperature: float) -> float:
    """signed: logits whose sign is turned where the label is off."""
    return float(np.logaddexp(0, -signed * math.exp(-log_temperature)).mean())


def _smallest(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum in [low, high] has it."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return (low + high) / 2


@dataclass(frozen=True)
class Bins:
    """Bins that hold something: share of all answers, mean confidence, share that was right; each (B)."""

    share: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, answers: Answers) -> "Bins":
        place = bin_of(answers.confidence).ravel()
        count, sure, hits = (
            np.bincount(place, weights, minlength=BINS)
            for weights in (None, answers.confidence.ravel(), answers.hits.ravel())
        )
        held = count > 0
        count, sure, hits = count[held], sure[held], hits[held]
        return cls(count / count.sum(), sure / count, hits / count)
