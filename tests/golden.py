"""Outputs of a few numbers for losses that are worked out by hand, and what those of one pair of models are."""

import math

import torch
from torch import Tensor

from mangakd.core.outputs import Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.base import LossCallback

LN3, INF = math.log(3), math.inf
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "dkd", "mse")
# Teacher (0.75, 0.25), student (0.5, 0.5).
HAND = {
    "forward_kl": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),
    "reverse_kl": 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25),
    "jsd": 0.5 * (0.75 * math.log(1.2) + 0.25 * math.log(2 / 3)) + 0.5 * (0.5 * math.log(0.8) + 0.5 * math.log(4 / 3)),
    "dkd": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),  # two classes: no second non-target class, so plain KL is left
    "mse": LN3**2 / 2,
}


def spec(classes: int = 2, **sizes: int) -> ModelSpec:
    sizes = {"layers": 1, "hidden": 2, "heads": 1, **sizes}
    return ModelSpec("m", head=Head.of_labels([str(i) for i in range(classes)]), **sizes)


def outputs(logits: list | Tensor, mask: list | None = None, **taps: object) -> Outputs:
    return Outputs(torch.as_tensor(logits, dtype=torch.float32), torch.tensor(mask or [[1]]), **taps)


def mean(loss: LossCallback, student: Outputs, teacher: Outputs | None, labels: list | None = None) -> float:
    loss.bind(spec(student.logits.shape[1]), spec(student.logits.shape[1]))
    output = loss(student, teacher, {"labels": torch.tensor(labels)} if labels else {})
    return (output.sum / output.count).item()
