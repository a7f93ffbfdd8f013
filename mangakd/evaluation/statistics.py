"""The scores of a classifier, each as sums over rows. metrics.json, report, gate and sweeps share this one definition.

accuracy: share of rows that are right (multi-label: the whole label set is right). macro_f1: mean F1 over the classes that
occur in answers or targets. ece: expected calibration error, 15 equal bins. agreement: share of rows for which student and
teacher give the same answer. kl: mean KL(teacher ‖ student) at T = 1, in nats. rare_accuracy: accuracy on the rows whose class
is rare in training (multi-label: recall of the rare labels). entropy: of the predicted distribution, mean over rows, in nats.

The answer is the class with the largest logit; of equal logits the first. A label is on if its logit is above 0. A class with
logit -inf in the teacher adds 0 to kl and entropy. A class with logit -inf in the student alone makes kl infinite.
"""

from functools import partial

import numpy as np

from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Score

BINS = 15
# Inner edges. Equal logits have probabilities such as 1/3 and 1/5, which are edges: the shift keeps rounding out of the choice.
EDGES = np.arange(1, BINS) / BINS - 1e-6
SCORES = {
    "accuracy": Score("accuracy", "{:.1%}"),
    "macro_f1": Score("macro-F1", "{:.1%}"),
    "rare_accuracy": Score(
        "rare-class accuracy", "{:.1%}",
        missing="no class is rare in training, or none of them occurs in test; test on rows that have them",
    ),
    "agreement": Score("agreement", "{:.1%}", meaning="agreement with the teacher"),
    "kl": Score("KL", "{:.3f}", "lower", "KL(teacher ‖ student)", "nats"),
    "ece": Score("ECE", "{:.3f}", "lower", "ECE as trained"),
    "ece_refit": Score("refit ECE", "{:.3f}", "lower", "ECE after refit"),
}  # fmt: skip


class Answers:
    """One model's answers: logits (N, C), divided by `temperature`, beside targets (N), or with `several` (N, C).

    predicted, truth: (N, C) bool. log_on: (N, C) log-probabilities. log_off: log-probabilities of "off", for multi-label tasks.
    confidence, hits: (N, K) probabilities, and whether the target agrees. K = 1 (the answer), or C for multi-label tasks.
    """

    def __init__(
        self, logits: np.ndarray, targets: np.ndarray, *, several: bool = False, temperature: float = 1.0
    ) -> None:
        scaled = logits.astype(np.float64) / temperature
        self.several = several
        if several:
            self.truth, self.predicted = targets.astype(bool), scaled > 0
            self.log_on, self.log_off = -np.logaddexp(0, -scaled), -np.logaddexp(0, scaled)
            self.confidence, self.hits = np.exp(self.log_on), self.truth
            return
        classes = np.arange(logits.shape[1])
        best = scaled.argmax(-1)
        self.truth, self.predicted = targets[:, None] == classes, best[:, None] == classes
        self.log_on, self.log_off = log_softmax(scaled), np.zeros(1)
        self.confidence = np.exp(self.log_on).max(-1, keepdims=True)
        self.hits = (best == targets)[:, None]

    @property
    def right(self) -> np.ndarray:
        """(N) bool; multi-label: whether the whole label set is right."""
        return (self.predicted == self.truth).all(-1)

    @property
    def entropy(self) -> np.ndarray:
        """(N) nats."""
        return -_expectation(self, self.log_on, self.log_off)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    relative = logits - logits.max(-1, keepdims=True)
    return relative - np.log(np.exp(relative).sum(-1, keepdims=True))


def divergence(teacher: Answers, student: Answers) -> np.ndarray:
    """(N) KL(teacher ‖ student) in nats; multi-label: summed over labels."""
    with np.errstate(invalid="ignore"):  # -inf − -inf, if both models rule out a class
        on, off = teacher.log_on - student.log_on, teacher.log_off - student.log_off
    return _expectation(teacher, on, off)


def _expectation(answers: Answers, on: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Mean of `on` (and of `off`, for labels that may be off) under the answers' distribution."""
    total = _products(answers.log_on, on)
    if answers.several:
        total = total + _products(answers.log_off, off)
    return total.sum(-1)


def _products(log_p: np.ndarray, values: np.ndarray) -> np.ndarray:
    """p · values; 0 if p is 0, even if the value is infinite."""
    p = np.exp(log_p)
    return np.multiply(p, values, out=np.zeros_like(p), where=p > 0)


def scores(answers: Answers, teacher: Answers | None = None) -> dict[str, Statistic]:
    """Score → its statistic. agreement and kl need a teacher."""
    statistics = {"accuracy": accuracy(answers), "macro_f1": macro_f1(answers), "ece": ece(answers)}
    if teacher is not None:
        statistics |= {"agreement": agreement(teacher, answers), "kl": mean(divergence(teacher, answers))}
    return statistics


def mean(values: np.ndarray, most: float = np.inf) -> Statistic:
    """The mean of (N) values from 0 to `most`."""
    return Statistic(values.astype(np.float64)[:, None], partial(mean_of, rows=len(values)), most)


def mean_of(sums: np.ndarray, rows: int) -> np.ndarray:
    """sums: (…, 1)."""
    return sums[..., 0] / rows


def accuracy(answers: Answers) -> Statistic:
    return mean(answers.right, most=1)


def agreement(teacher: Answers, student: Answers) -> Statistic:
    return mean((teacher.predicted == student.predicted).all(-1), most=1)


def rare_accuracy(answers: Answers, rare: np.ndarray) -> Statistic:
    """rare: (C) bool."""
    truth = answers.truth[:, rare]
    hits = truth & answers.predicted[:, rare]
    return Statistic(np.stack([hits.sum(-1), truth.sum(-1)], -1).astype(np.float64), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # NaN without a rare row
        return sums[..., 0] / sums[..., 1]


def macro_f1(answers: Answers) -> Statistic:
    """F1 = 2 hits / (predicted + true) of each class that occurs in the answers or the targets, then their mean."""
    hits, either = answers.predicted & answers.truth, answers.predicted.astype(np.int8) + answers.truth
    return Statistic(np.concatenate([hits, either], 1).astype(np.float32), macro_f1_of)


def macro_f1_of(sums: np.ndarray, rows: int = 0) -> np.ndarray:
    """sums: (…, 2 C), hits and (predicted + true) of each class."""
    hits, either = np.split(sums, 2, axis=-1)
    with np.errstate(invalid="ignore"):  # NaN without any class, as with empty label sets only
        return (2 * hits / np.maximum(either, 1)).sum(-1) / (either > 0).sum(-1)


def ece(answers: Answers) -> Statistic:
    """Σ over bins |Σ (confidence − hit)| / N."""
    gap = answers.confidence - answers.hits
    cell = bin_of(answers.confidence) + BINS * np.arange(len(gap))[:, None]
    features = np.bincount(cell.ravel(), gap.ravel(), minlength=BINS * len(gap)).reshape(len(gap), BINS)
    return Statistic(features, partial(ece_of, rows=len(gap), answers=gap.shape[1]))


def ece_of(sums: np.ndarray, rows: int, answers: int) -> np.ndarray:
    """sums: (…, BINS), confidence − hit. answers: K of each row."""
    return np.abs(sums).sum(-1) / (rows * answers)


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """0…BINS − 1; an edge belongs to the upper bin, and 1.0 to the last."""
    return np.searchsorted(EDGES, confidence, side="right")
