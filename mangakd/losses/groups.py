"""Scores of a query's documents side by side, and `GroupLoss`: what the ranking losses share.

A ranker reads one sequence for each pair of a query and a document, so models answer (S, 1). `batch["first"]` (B + 1) says which
sequences belong to which query. Here they become rows of a table (B, G), padded, with a mask. Every ranking loss is a mean over
the documents (or pairs of documents) of a query, and then a mean over queries: a long list of documents counts like a short one.

Shapes: B queries, G documents of the longest list, S sequences; grades (B, G), NaN where a query has no grades and in padding.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Fits, Need, Requires
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossCallback, LossOutput

WIDE = 0.5  # part of [0, 1]


@dataclass(frozen=True)
class Groups:
    """The documents of a batch's queries. first: (B + 1) int64. grades: (B, G), or None where the batch has none.

    width: G, at least the length of the longest list.
    """

    first: Tensor
    width: int
    grades: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch) -> "Groups":
        """G is that of the grades, so that the device is not asked for the longest list. Raises UserError without `first`."""
        first, grades = batch.get("first"), batch.get("grades")
        if first is None:
            raise UserError(
                "the ranking losses compare the documents of a query, and the batch does not say which documents are whose: it "
                "needs `first` (queries + 1), where the sequences first[i] up to first[i + 1] belong to query i (task=rerank)."
            )
        return cls(first, grades.shape[1] if grades is not None else max(first.diff().tolist(), default=0), grades)

    @cached_property
    def sizes(self) -> Tensor:
        """(B) documents of each query."""
        return self.first.diff()

    @cached_property
    def mask(self) -> Tensor:
        """(B, G) bool: where a document is."""
        return torch.arange(self.width, device=self.first.device) < self.sizes[:, None]

    def padded(self, scores: Tensor, rest: float = 0.0) -> Tensor:
        """(S, 1) → (B, G) in fp32, with `rest` in padding, where no gradient comes from."""
        places = self.first[:-1, None] + torch.arange(self.width, device=self.first.device)
        table = scores[:, 0].float()[places.clamp(max=max(len(scores) - 1, 0))]
        return table.masked_fill(~self.mask, rest)

    def counted(self, unit: str) -> Tensor:
        """(B) bool: the queries that a loss with this unit learns from (`units` in tasks/rerank/encode.py, in numpy)."""
        if unit == "groups":
            return self.sizes >= 2
        if unit == "rows":
            return self.sizes >= 1
        if self.grades is None:
            return torch.zeros_like(self.sizes, dtype=torch.bool)
        graded = self.grades.isfinite()
        if unit == "labels":
            return graded.any(1)
        high = self.grades.masked_fill(~graded, -torch.inf).amax(1)
        return high > self.grades.masked_fill(~graded, torch.inf).amin(1)

    @property
    def known_grades(self) -> Tensor:
        """(B, G): 0 where there are none."""
        return self.first.new_zeros(self.mask.shape).float() if self.grades is None else self.grades.nan_to_num(0.0)

    def better(self) -> Tensor:
        """(B, G, G) bool: whether document i has a higher grade than document j."""
        return self.pairs() & (differences(self.known_grades) > 0)

    def pairs(self) -> Tensor:
        """(B, G, G) bool: two documents."""
        same = torch.eye(self.width, dtype=torch.bool, device=self.mask.device)
        return self.mask[:, :, None] & self.mask[:, None, :] & ~same


class GroupLoss(LossCallback):
    """Base of the ranking losses: the queries that count, their scores as a table, the checks of heads and of teacher scores.

    A subclass gives `each`: the loss of each query, a mean over its documents or pairs. unit: which queries count: rows (all),
    labels (with grades), groups (two documents or more) or ordered (two different grades).
    learns_margins: it reads differences of the teacher's scores, which a sigmoid has flattened.
    """

    learns_margins: ClassVar[bool] = False

    @property
    def fits(self) -> Fits:
        return Fits(("score",))

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        sides = [student, self.teacher_spec(teacher)] if self.needs_teacher else [student]
        for spec in sides:
            if spec.head.outputs != 1:
                raise UserError(f"losses.{self.name} ranks by one score, but {spec.name} has {spec.head}.")
        self.check_options()
        answer = Need(answer=True)
        grades = self.unit in ("labels", "ordered")
        self.requires = Requires(answer, answer if self.needs_teacher else Need(), labels=grades)

    def check_options(self) -> None:
        """Raises UserError for an option outside its range. Sets `unit` where an option decides it."""

    def unit_of_pairs(self) -> str:
        """Of a loss with the option `pairs`: all | graded."""
        self.check_choice("pairs", ("all", "graded"))
        return "groups" if self.config["pairs"] == "all" else "ordered"

    def calibrate(self, teacher: Tensor) -> None:
        """Raises UserError for a teacher whose scores fill [0, 1] and do not leave it: they went through a sigmoid.

        Scores in a small part of [0, 1] are left alone: a sigmoid flattens nothing there, and a weak teacher has such logits.
        """
        scores = teacher[teacher.isfinite()].float()  # padding is -inf
        if (
            not self.learns_margins
            or not len(scores)
            or scores.min() < 0
            or scores.max() > 1
            or scores.max() - scores.min() < WIDE
        ):
            return
        raise UserError(
            f"losses.{self.name} learns differences of the teacher's scores, and all {len(scores):,} scores on validation lie in "
            f"[0, 1] ({scores.min():.4g} … {scores.max():.4g}): they went through a sigmoid, which flattens large differences. "
            "Give the scores before the sigmoid, a cross-encoder's logits; a file of such scores holds log(p / (1 − p))."
        )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Scores (S, 1) of both sides → the sum over the queries that count of `each`."""
        groups = Groups.of(batch)
        valid = groups.counted(self.unit)
        # Replaced before the arithmetic: 0 · NaN would reach the gradient of what does not count.
        sides = [
            groups.padded(side.answer).masked_fill(~valid[:, None], 0.0)
            for side in (student, teacher)
            if side is not None
        ]
        other = sides[1].detach() if self.needs_teacher else None
        each = self.each(sides[0], other, groups, batch.get("progress", 0.0))
        return LossOutput(each.masked_fill(~valid, 0.0).sum(), valid.sum())

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        """Scores (B, G), 0 in padding and in queries that do not count → (B), finite everywhere."""
        raise NotImplementedError


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Over all axes but the first, of what the mask holds; 0 where it holds nothing. (B, …) twice → (B)."""
    axes = tuple(range(1, mask.dim()))
    return values.masked_fill(~mask, 0.0).sum(axes) / mask.sum(axes).clamp(min=1)


def log_shares(scores: Tensor, mask: Tensor) -> Tensor:
    """log softmax over the documents: (B, G), -inf in padding. Each query owns a document (data/encoded.py)."""
    return torch.log_softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)


def differences(scores: Tensor) -> Tensor:
    """(B, G) → (B, G, G): score of i minus score of j."""
    return scores[:, :, None] - scores[:, None, :]
