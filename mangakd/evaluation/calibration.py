"""Calibration: does the confidence of a model match its accuracy? One temperature fixes most of the gap.

Dividing logits by a temperature changes the confidence of an answer and no answer. The temperature is refit on validation and
judged on test. A distilled student is often under-confident, because its soft targets were softened by T.
Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from mangakd.evaluation.statistics import BINS, Answers, bin_of

COLDEST, HOTTEST = 0.05, 20.0  # limits: without a mistake on validation, the best temperature would be 0
_STEPS = 25  # golden-section steps: T to 0.01 %


def fit_temperature(logits: np.ndarray, targets: np.ndarray, several: bool = False) -> float:
    """Fit T to the targets: the T with the smallest negative log-likelihood. 1.0 changes nothing.

    The negative log-likelihood is convex in 1/T. So the loss has one minimum in log T, and a golden-section search finds the
    minimum without a gradient.
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
    """signed: logits, negated for labels that are off."""
    return float(np.logaddexp(0, -signed * math.exp(-log_temperature)).mean())


def _smallest(loss: Callable[[float], float], low: float, high: float) -> float:
    """Minimise a function that has one minimum in [low, high]; returns its argument."""
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
    """The bins that are not empty, each (bins). share: of answers. confidence: the mean. right: the share of right answers."""

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
        filled = count > 0
        count, sure, hits = count[filled], sure[filled], hits[filled]
        return cls(count / count.sum(), sure / count, hits / count)
