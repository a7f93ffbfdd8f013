"""The sums of the scores of predicted tokens for a batch: those of token_scores.py, added up."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from mangakd.evaluation.statistics import BINS
from mangakd.tasks.meters import Meter, Meters, Tensors
from mangakd.tasks.token_scores import MEASURES, Measure

BESIDE = ("agreement", "kl", "bucket_kl")


def meters(teacher: bool, together: bool) -> Meters:
    """teacher: whether the answers compare the model with a teacher."""
    measures = {name: each for name, each in MEASURES.items() if teacher or each.of not in BESIDE}
    own = {
        name: Meter(1 + (BINS if each.of == "gaps" else 1), partial(_formula, each), together)
        for name, each in measures.items()
    }
    return Meters(own, partial(_sums, measures))


def _formula(measure: Measure, sums: np.ndarray, rows: int) -> np.ndarray:
    return measure.formula(sums)


def _sums(measures: dict[str, Measure], answers: Tensors, truth: Tensors, teacher: Tensors | None) -> dict[str, Tensor]:
    """Score → its sums over the batch."""
    tokens = truth["tokens"].sum()[None].double()
    return {
        name: torch.cat([answers[each.of].double().sum(0).reshape(-1), tokens])
        for name, each in measures.items()
        if each.of in answers
    }
