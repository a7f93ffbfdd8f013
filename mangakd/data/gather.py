"""Answers of a model or a teacher for many rows, put back into the rows' own order."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor

from mangakd.core.outputs import Batch, each_tensor
from mangakd.data.loader import EvalBatches

Advance = Callable[[int], None]
Name = TypeVar("Name")


def gather(
    answer: Callable[[Batch], Tensor], batches: EvalBatches, device: torch.device, advance: Advance | None = None,
    precision: str = "32-true",
) -> Tensor:  # fmt: skip
    """(N, …) fp32 on the CPU from answers (B, …). advance: told the number of rows done, for a progress bar.

    precision: of the forward, as in `hardware.precision`.
    """
    return gather_all(lambda batch: {"": answer(batch)}, batches, device, advance, precision)[""]


def gather_all(
    answers: Callable[[Batch], Mapping[Name, Tensor]], batches: EvalBatches, device: torch.device,
    advance: Advance | None = None, precision: str = "32-true",
) -> dict[Name, Tensor]:  # fmt: skip
    """Several answers of one forward, by name."""
    parts: list[dict[Name, Tensor]] = []
    with torch.no_grad(), autocast(device, precision):
        for batch in batches:
            parts.append({name: rows.float().cpu() for name, rows in answers(to_device(batch, device)).items()})
            if advance is not None:
                advance(len(next(iter(parts[-1].values()))))
    order = torch.from_numpy(batches.order)
    return {name: _ordered([part[name] for part in parts], order) for name in parts[0]}


def _ordered(parts: list[Tensor], order: Tensor) -> Tensor:
    stacked = torch.cat(parts)
    ordered = torch.empty_like(stacked)
    ordered[order] = stacked
    return ordered


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """What Lightning computes in under `precision`, for a forward outside a Trainer."""
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision.endswith("-mixed"))


def to_device(batch: Batch, device: torch.device) -> Batch:
    return each_tensor(batch, lambda tensor: tensor.to(device))
