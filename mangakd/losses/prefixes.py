"""`PrefixLoss`: what the losses of vectors share. Each works on the whole vector, or on several of its prefixes (Matryoshka).

    loss = 1/|dims| Σ_d loss(normalize(v[:d]))        d in dims

A student that learns every prefix can be cut after training: vectors of 64 numbers need a sixth of the memory of 384. The
teacher's vectors are not cut, as their first numbers mean no more than others: its whole vectors teach every prefix.
Source: Kusupati et al. 2022 (arXiv:2205.13147). There labels teach the prefixes; here the teacher's similarities do.

Shapes: vectors (S, D). S sequences, D dimensions, d of a prefix.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Fits, Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossCallback, LossOutput


class PrefixLoss(LossCallback):
    """Base of the losses of vectors. A subclass gives `at`, the loss of one prefix.

    dims: sizes of the prefixes, or None for the whole vector. sizes: the same after `bind`.
    """

    def __init__(self, *, weight: Schedule = 1.0, dims: Sequence[int] | None = None) -> None:
        super().__init__(weight=weight)
        self.dims = dims
        self.sizes: tuple[int, ...] = ()

    @property
    def fits(self) -> Fits:
        return Fits(("vector",))

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        other = self.teacher_spec(teacher) if self.needs_teacher else None
        self.sizes = self._sizes(student)
        self.check_options(student, other)
        answer = Need(answer=True)
        self.requires = Requires(answer, answer if other else Need(), labels=self.unit == "labels")

    def _sizes(self, student: ModelSpec) -> tuple[int, ...]:
        width = student.head.outputs
        if self.dims is None:
            return (width,)
        sizes = list(self.dims)
        if not sizes or len(set(sizes)) < len(sizes) or not all(_whole(d) and 1 <= d <= width for d in sizes):
            raise UserError(
                f"{self.key('dims')}={sizes} must be different whole numbers from 1 to {width}, the dimensions of "
                f"{student.name}; null for the whole vector."
            )
        return tuple(sizes)

    def check_options(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        """Raises UserError for an option outside its range; builds what learns."""

    def positive(self, option: str) -> None:
        """Raises UserError unless the option's value is a number above 0."""
        value = vars(self)[option]
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise UserError(f"{self.key(option)}={value} must be a number above 0.")

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Vectors (S, D_s) and (S, D_t) → the mean over prefixes of their sums, and the count of the first."""
        other = teacher.answer.detach().float() if self.needs_teacher and teacher is not None else None
        parts = [self.at(size, student.answer.float(), other, batch) for size in self.sizes]
        return LossOutput(torch.stack([part.sum for part in parts]).mean(), parts[0].count)

    def at(self, size: int, student: Tensor, teacher: Tensor | None, batch: Batch) -> LossOutput:
        """Vectors (S, D_s), of which the first `size` numbers count, and (S, D_t)."""
        raise NotImplementedError


def prefix(vectors: Tensor, size: int) -> Tensor:
    """(S, D) → (S, size) of length 1."""
    return F.normalize(vectors[:, :size], dim=-1)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
