"""The sums of a classifier's scores for a batch, on its device: evaluation/statistics.py has the same for rows in numpy."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from mangakd.core.spec import Head
from mangakd.evaluation.statistics import BINS, EDGES, ece_of, macro_f1_of, mean_of
from mangakd.tasks.meters import Meter, Meters, Tensors


def meters(head: Head, teacher: bool, together: bool) -> Meters:
    """teacher: whether its logits are given, for agreement and KL."""
    own = {
        "accuracy": Meter(1, mean_of, together),
        "macro_f1": Meter(2 * head.outputs, macro_f1_of, together),
        "ece": Meter(BINS, partial(ece_of, answers=head.outputs if head.several else 1), together),
    }
    if teacher:
        own |= {"agreement": Meter(1, mean_of, together), "kl": Meter(1, mean_of, together)}
    return Meters(own, partial(sums, head.several))


class Answers:
    """statistics.Answers of a batch: logits (B, C) beside targets (B), or with `several` (B, C), in float64."""

    def __init__(self, logits: Tensor, targets: Tensor, several: bool) -> None:
        scaled = logits.double()
        if several:
            self.truth, self.predicted = targets.bool(), scaled > 0
            self.log_p = torch.stack([logsigmoid(scaled), logsigmoid(-scaled)], -1)  # (B, C, 2): on, off
            self.confidence, self.hits = self.log_p[..., 0].exp(), self.truth
            return
        classes = torch.arange(logits.shape[1], device=logits.device)
        best = scaled.argmax(-1)
        self.truth, self.predicted = targets[:, None] == classes, best[:, None] == classes
        self.log_p = scaled.log_softmax(-1)
        self.confidence, self.hits = self.log_p.exp().amax(-1, keepdim=True), (best == targets)[:, None]


def sums(several: bool, answers: Tensors, truth: Tensors, teacher: Tensors | None) -> dict[str, Tensor]:
    """Score → its sums over the batch."""
    student = Answers(answers["logits"], truth["labels"], several)
    added = {
        "accuracy": _count((student.predicted == student.truth).all(-1)),
        "macro_f1": torch.cat(
            [_count(student.predicted & student.truth), _count(student.predicted) + _count(student.truth)]
        ),
        "ece": _gaps(student),
    }
    if teacher is not None:
        other = Answers(teacher["logits"], truth["labels"], several)
        added["agreement"] = _count((other.predicted == student.predicted).all(-1))
        added["kl"] = _divergence(other.log_p, student.log_p)
    return {name: value.reshape(-1) for name, value in added.items()}


def _count(marks: Tensor) -> Tensor:
    return marks.sum(0).double()


def _gaps(answers: Answers) -> Tensor:
    """(BINS) confidence − hit, summed by bin."""
    place = torch.bucketize(answers.confidence, torch.from_numpy(EDGES).to(answers.confidence.device), right=True)
    gap = answers.confidence - answers.hits.double()
    return one_hot(place.flatten(), BINS).double().T @ gap.flatten()


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ p (log p − log q), where p is above 0: a class that the teacher rules out adds nothing."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum()
