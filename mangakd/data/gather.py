"""Answers of a model or a teacher for many rows, put back into the rows' own order."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from mangakd.core.outputs import Batch, each_tensor
from mangakd.data.loader import EvalBatches

Advance = Callable[[int], None]


def gather(
    answer: Callable[[Batch], Tensor], batches: EvalBatches, device: torch.device, advance: Advance | None = None,
    precision: str = "32-true",
) -> Tensor:  # fmt: skip
    """(N, …) fp32 on the CPU from answers (B, …). advance: told the number of rows done, for a progress bar.

    precision: of the forward, as in `hardware.precision`.
    """
    parts = []
    with torch.no_grad(), autocast(device, precision):
        for batch in batches:
            rows = answer(to_device(batch, device)).float().cpu()
            parts.append(rows)
            if advance is not None:
                advance(len(rows))
    stacked = torch.cat(parts)
    ordered = torch.empty_like(stacked)
    ordered[torch.from_numpy(batches.order)] = stacked
    return ordered


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """What Lightning computes in under `precision`, for a forward outside a Trainer."""
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision.endswith("-mixed"))


def to_device(batch: Batch, device: torch.device) -> Batch:
    return each_tensor(batch, lambda tensor: tensor.to(device))
