"""The sums of a ranker's scores for a batch, by metrics.py itself: a batch has few scores, and sorting them needs no device."""

from functools import partial

import torch
from torch import Tensor

from mangakd.core.spec import Head
from mangakd.evaluation.judge import Arrays, Judge
from mangakd.tasks.meters import Meter, Meters, Tensors
from mangakd.tasks.rerank.judge import BESIDE
from mangakd.tasks.rerank.metrics import ratio


def meters(judge: Judge, head: Head, teacher: bool, together: bool) -> Meters:
    """teacher: whether its answers are given, for the scores beside it."""
    names = [name for name in judge.scores if teacher or name not in BESIDE]
    return Meters({name: Meter(2, ratio, together) for name in names}, partial(_sums, judge, head))


def _sums(judge: Judge, head: Head, answers: Tensors, truth: Tensors, teacher: Tensors | None) -> dict[str, Tensor]:
    """Score → its sums over the batch."""
    device = answers["logits"].device
    own, targets = _arrays(answers), _arrays(truth)
    statistics = judge.statistics(head, own, targets, None if teacher is None else _arrays(teacher))
    return {name: torch.from_numpy(each.features.sum(0)).to(device) for name, each in statistics.items()}


def _arrays(tensors: Tensors) -> Arrays:
    return {name: each.float().cpu().numpy() for name, each in tensors.items()}
