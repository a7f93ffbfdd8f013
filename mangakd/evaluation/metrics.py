"""Scores of a classifier and of a student beside its teacher. Accuracy, F1 and ECE are torchmetrics'.

accuracy: share of rows that are right (multi-label: the whole label set). macro_f1: mean F1 over classes. ece: expected
calibration error, 15 equal bins. agreement: share of rows where student and teacher say the same. kl: mean
KL(teacher ‖ student) at T = 1, in nats. All to 6 decimals: torchmetrics answers in fp32, where 184 of 200 is 0.9200000167.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multilabel_exact_match,
    multilabel_f1_score,
)

BINS, DECIMALS = 15, 6


def single_label_metrics(logits: Tensor, targets: Tensor, teacher: Tensor | None = None) -> dict[str, float]:
    """logits, teacher: (N, C). targets: (N) class ids."""
    classes = logits.shape[-1]
    logits = logits.double()
    scores = {
        "accuracy": multiclass_accuracy(logits, targets, classes, average="micro"),
        "macro_f1": multiclass_f1_score(logits, targets, classes, average="macro"),
        # Probabilities are handed over: torchmetrics takes a logit row that happens to lie in [0, 1] for probabilities.
        "ece": multiclass_calibration_error(logits.softmax(-1), targets, classes, n_bins=BINS),
    }
    if teacher is not None:
        log_p, log_q = torch.log_softmax(teacher.double(), -1), torch.log_softmax(logits, -1)
        scores["agreement"] = (logits.argmax(-1) == teacher.argmax(-1)).double().mean()
        scores["kl"] = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return {name: round(float(value), DECIMALS) for name, value in scores.items()}


def multi_label_metrics(logits: Tensor, targets: Tensor, teacher: Tensor | None = None) -> dict[str, float]:
    """logits, teacher, targets: (N, C), targets 0 or 1. kl is summed over labels."""
    logits, hits = logits.double(), targets.long()
    probs, chosen = logits.sigmoid(), (logits > 0).long()
    classes = logits.shape[-1]
    scores = {
        "accuracy": multilabel_exact_match(chosen, hits, classes),
        "macro_f1": multilabel_f1_score(chosen, hits, classes, average="macro"),
        "ece": binary_calibration_error(probs.flatten(), hits.flatten(), n_bins=BINS),
    }
    if teacher is not None:
        teacher = teacher.double()
        scores["agreement"] = ((logits > 0) == (teacher > 0)).all(-1).double().mean()
        on = teacher.sigmoid() * (logsigmoid(teacher) - logsigmoid(logits))
        off = (-teacher).sigmoid() * (logsigmoid(-teacher) - logsigmoid(-logits))
        scores["kl"] = (on + off).sum(-1).mean()
    return {name: round(float(value), DECIMALS) for name, value in scores.items()}
