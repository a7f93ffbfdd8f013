"""Losses of a run or of one of its stages, bound to the sizes of both models."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from mangakd.core.spec import ModelSpec
from mangakd.losses.loss_set import LossSet


def bound_losses(
    make: Callable[[str], Any], names: Iterable[str], student: ModelSpec, teacher: ModelSpec, seed: int
) -> LossSet:
    """make: key of the config → its loss. seed: of the projections' random weights."""
    losses = LossSet({name: make(f"losses.{name}") for name in names})
    torch.manual_seed(seed)
    losses.bind(student, teacher)
    return losses
