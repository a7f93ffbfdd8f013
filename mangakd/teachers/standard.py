"""`Scale`: the scores of an ensemble's members on one scale, so that the member with the largest scores does not decide alone.

A ranker learns differences of scores; how large they are, and around what, is its own affair. `combine=standardised` takes from
each member's scores their mean over the validation rows, and divides by their standard deviation there.
Source: z-score normalisation before fusion, Renda and Straccia 2003, doi:10.1145/952532.952698.
"""

import logging
from dataclasses import dataclass

from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.spec import Kind

log = logging.getLogger(__name__)
COMBINE = "standardised"


@dataclass(frozen=True)
class Scale:
    """offset, spread: (M, 1, C) of M members with C scores."""

    offset: Tensor
    spread: Tensor

    @classmethod
    def of(cls, scores: Tensor) -> "Scale":
        """scores: (M, N, C) on validation."""
        double = scores.double()
        scale = cls(double.mean(1, keepdim=True).float(), double.std(1, keepdim=True, unbiased=False).float())
        for number, (offset, spread) in enumerate(zip(scale.offset, scale.spread, strict=True), 1):
            log.info("member %d of the teacher: scores around %.3g, spread %.3g", number, offset.mean(), spread.mean())
        return scale

    def check(self) -> "Scale":
        """Raises UserError for a member that gives all rows one score."""
        for number, (offset, spread) in enumerate(zip(self.offset, self.spread, strict=True), 1):
            if not spread.all():
                raise UserError(
                    f"teacher.combine={COMBINE} divides by the spread of each member's scores, and member {number} gives all "
                    f"sequences of validation the score {offset.mean():.3g}. Leave it out of the ensemble."
                )
        return self

    @property
    def numbers(self) -> tuple[tuple[float, float], ...]:
        """(offset, spread) of each member, means over its C scores."""
        sides = (each.double().mean((1, 2)).tolist() for each in (self.offset, self.spread))
        return tuple(zip(*sides, strict=True))

    def __call__(self, members: Tensor) -> Tensor:
        """(M, B, C) scores → on one scale, fp32."""
        return (members.float() - self.offset.to(members.device)) / self.spread.to(members.device)


def check_scores(kind: Kind) -> None:
    """Raises UserError for heads whose answers are no scores."""
    if kind != "score":
        raise UserError(
            f"teacher.combine={COMBINE} is for scores, and the task's head is of kind {kind}: use probabilities, whose scale is "
            "the same for every member."
        )
