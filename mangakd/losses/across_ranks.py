"""One micro-batch out of those of all ranks, for losses that compare its rows with each other.

Every rank gets the answers of all ranks and computes the same comparison. The gradient at its own answers is then that of the
whole micro-batch, so the backward pass needs no communication. The gradient of a row comes from one rank, and the strategy (DDP
or FSDP2) takes the mean over ranks: multiplying by the number of ranks turns the mean into the sum.

Shapes: answers (S, C) or (S, D) of this rank's S sequences, which belong to B rows. Ranks may hold different numbers of both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from mangakd.core import ranks
from mangakd.core.outputs import Batch, Outputs


def gather(
    student: Outputs, teacher: Outputs | None, batch: Batch, entries: Iterable[str]
) -> tuple[Outputs, Outputs | None, Batch]:
    """The same of all ranks, in their order; every rank must call it.

    Outputs hold answers alone, with the student's graph. The batch holds `entries` where it has them, `first`, `scale` and
    `progress`. A rank that took a row only to take part (scale 0, see data/sampler.py) gives none.
    """
    first, scale = batch.get("first"), batch.get("scale")
    sequences = len(student.answer)
    sizes = (sequences, sequences if first is None else len(first) - 1)
    everyone: list[Any] = ranks.exchange(((0, 0) if scale is not None and not scale["rows"] else sizes, scale))
    by_sequence, by_row = zip(*(sizes for sizes, _ in everyone), strict=True)
    whole: dict[str, Any] = {
        name: _rows(batch[name], by_sequence if name == "key" else by_row) for name in entries if name in batch
    }
    whole["progress"] = batch["progress"]
    if first is not None:
        whole["first"] = F.pad(_rows(first.diff(), by_row).cumsum(0), (1, 0))
    if scale is not None:
        whole["scale"] = {unit: fmean(shares[unit] for _, shares in everyone) for unit in scale}
    return _answers(student, by_sequence), _answers(teacher, by_sequence) if teacher is not None else None, whole


def _answers(outputs: Outputs, sizes: Sequence[int]) -> Outputs:
    """Answers of all ranks, fp32. The sequences have no tokens, as those of ranks differ in number."""
    logits, vector, members = (
        None if each is None else _rows(each.float(), sizes)
        for each in (outputs.logits, outputs.vector, _turned(outputs.members))
    )
    mask = outputs.mask.new_zeros(sum(sizes), 0)
    return replace(
        outputs, logits=logits, vector=vector, mask=mask, hidden={}, attention={},
        members=_turned(members),
    )  # fmt: skip


def _turned(members: Tensor | None) -> Tensor | None:
    """(M, S, C) ↔ (S, M, C)."""
    return None if members is None else members.transpose(0, 1)


def _rows(own: Tensor, sizes: Sequence[int]) -> Tensor:
    """(n, …) of this rank → (Σ sizes, …) of all, of which rank r gives its first sizes[r]."""
    return _Gather.apply(own[: sizes[ranks.rank()]], sizes)  # type: ignore[no-any-return, no-untyped-call]


class _Gather(torch.autograd.Function):
    """All-gather of tensors of different lengths, which are padded to the longest."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: Sequence[int]) -> Tensor:
        ctx.sizes = sizes
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        if padded.numel():
            dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        rank = ranks.rank()
        start = sum(ctx.sizes[:rank])
        return len(ctx.sizes) * gradient[start : start + ctx.sizes[rank]], None
