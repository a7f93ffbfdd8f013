"""Fit one temperature to labels: the division of logits after which a model is as often right as it is sure.

Formula, with logits z_m of M members of weight w_m (M = 1 for a single model) and the label y of each of N rows:

    T = argmin − Σ log Σ_m w_m softmax(z_m / T)[y]          multi-label: over all N · C cells, with sigmoid(± z_m / T)

Dividing logits by T changes the confidence of an answer and no answer of a single model. Of a single model the sum is convex in
1 / T, so it has one minimum in log T, and a golden-section search finds the minimum without a gradient.
Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

COLDEST, HOTTEST = 0.05, 20.0  # limits: without a mistake on the rows, the best temperature would be 0
_STEPS = 25  # golden-section steps: T to 0.01 %


def fit_temperature(
    logits: np.ndarray, targets: np.ndarray, several: bool = False, weights: Sequence[float] = (1.0,)
) -> float:
    """Fit T to the targets (N), or (N, C) with `several`. logits: (N, C), or (M, N, C) of members. 1.0 changes nothing.

    Rows whose label is ruled out by a logit of −inf say nothing of T and are left out.
    """
    members = logits.astype(np.float64).reshape(-1, *logits.shape[-2:])
    log_weights = np.log(np.asarray(weights, np.float64))[:, None]
    if several:
        own = np.where(targets.astype(bool), members, -members).reshape(len(members), -1)
        loss = partial(_binary_loss, own, log_weights)
    else:
        own = np.take_along_axis(members, targets[None, :, None], -1)[..., 0]
        possible = np.isfinite(own).all(0)
        relative = members[:, possible] - members[:, possible].max(-1, keepdims=True)
        loss = partial(_loss, relative, targets[possible], log_weights)
        if not possible.any():
            return 1.0
    return math.exp(_smallest(loss, math.log(COLDEST), math.log(HOTTEST)))


def _loss(members: np.ndarray, targets: np.ndarray, log_weights: np.ndarray, log_temperature: float) -> float:
    scaled = members * math.exp(-log_temperature)
    own = np.take_along_axis(scaled, targets[None, :, None], -1)[..., 0]
    return -float(np.logaddexp.reduce(log_weights + own - np.log(np.exp(scaled).sum(-1)), 0).mean())


def _binary_loss(signed: np.ndarray, log_weights: np.ndarray, log_temperature: float) -> float:
    """signed: (M, N · C) logits, negated for labels that are off."""
    each = -np.logaddexp(0, -signed * math.exp(-log_temperature))
    return -float(np.logaddexp.reduce(log_weights + each, 0).mean())


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
