"""The report's scores, each as sums over rows, for the bootstrap. Equal to evaluation/metrics.py where that has them.

rare_accuracy: of the rows whose class is rare in training, the share that is right (multi-label: of the rare labels that
are on, the share that is found). entropy: of the predicted distribution, mean over rows, in nats.
"""

from functools import partial

import numpy as np

from mangakd.evaluation.bootstrap import Statistic

BINS = 15


class Answers:
    """What one model says about rows: logits (N, C), divided by `temperature`, beside targets (N) or (N, C).

    said, truth: (N, C) bool. log_on: (N, C) log-probabilities; log_off: of the opposite, for multi-label tasks.
    confidence, hits: (N, K) probabilities and whether they came true, K = 1 (the answer), or C for multi-label tasks.
    """

    def __init__(self, logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> None:
        scaled = logits.astype(np.float64) / temperature
        self.multi_label = targets.ndim == 2
        if self.multi_label:
            self.truth, self.said = targets.astype(bool), scaled > 0
            self.log_on, self.log_off = -np.logaddexp(0, -scaled), -np.logaddexp(0, scaled)
            self.confidence, self.hits = np.exp(self.log_on), self.truth
            return
        classes = np.arange(logits.shape[1])
        best = scaled.argmax(-1)
        self.truth, self.said = targets[:, None] == classes, best[:, None] == classes
        self.log_on, self.log_off = log_softmax(scaled), np.zeros(1)
        self.confidence = np.exp(self.log_on).max(-1, keepdims=True)
        self.hits = (best == targets)[:, None]

    @property
    def right(self) -> np.ndarray:
        """(N) bool; multi-label: the whole label set."""
        return (self.said == self.truth).all(-1)

    @property
    def entropy(self) -> np.ndarray:
        """(N) nats."""
        return -_expected(self, self.log_on, self.log_off)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def divergence(teacher: Answers, student: Answers) -> np.ndarray:
    """(N) KL(teacher ‖ student) in nats; multi-label: summed over labels."""
    return _expected(teacher, teacher.log_on - student.log_on, teacher.log_off - student.log_off)


def _expected(answers: Answers, on: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Mean of `on` (and of `off`, for labels that may be off) under the answers' distribution."""
    total = np.exp(answers.log_on) * on
    if answers.multi_label:
        total = total + np.exp(answers.log_off) * off
    return total.sum(-1)


def mean(values: np.ndarray, most: float = np.inf) -> Statistic:
    """The mean of (N) values from 0 to `most`."""
    return Statistic(values.astype(np.float64)[:, None], partial(_mean, rows=len(values)), most)


def _mean(sums: np.ndarray, rows: int) -> np.ndarray:
    return sums[..., 0] / rows


def accuracy(answers: Answers) -> Statistic:
    return mean(answers.right, most=1)


def agreement(teacher: Answers, student: Answers) -> Statistic:
    return mean((teacher.said == student.said).all(-1), most=1)


def rare_accuracy(answers: Answers, rare: np.ndarray) -> Statistic:
    """rare: (C) bool."""
    truth = answers.truth[:, rare]
    found = truth & answers.said[:, rare]
    return Statistic(np.stack([found.sum(-1), truth.sum(-1)], -1).astype(np.float64), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def macro_f1(answers: Answers) -> Statistic:
    """F1 = 2 hits / (said + true) of each class that occurs in the answers or the targets, then their mean."""
    hits, either = answers.said & answers.truth, answers.said.astype(np.int8) + answers.truth
    return Statistic(np.concatenate([hits, either], 1).astype(np.float32), _macro_f1)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    hits, either = np.split(sums, 2, axis=-1)
    return (2 * hits / np.maximum(either, 1)).sum(-1) / (either > 0).sum(-1)


def ece(answers: Answers) -> Statistic:
    """Σ over bins |Σ (confidence − hit)| / N."""
    bins = bin_of(answers.confidence)
    gap = answers.confidence - answers.hits
    features = np.stack([np.where(bins == b, gap, 0.0).sum(-1) for b in range(BINS)], -1)
    return Statistic(features, partial(_ece, cells=gap.size))


def _ece(sums: np.ndarray, cells: int) -> np.ndarray:
    return np.abs(sums).sum(-1) / cells


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """0…BINS − 1; edges belong to the upper bin, 1.0 to the last."""
    return np.minimum(np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="right") - 1, BINS - 1)
