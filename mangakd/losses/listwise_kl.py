"""Listwise KL: the student learns how the teacher shares one vote among the documents of a query.

Formula, with student scores s and teacher scores t of a query's documents:

    each = T² · KL(softmax(t / T) ‖ softmax(s / T))        count = queries with two documents or more

T² keeps the size of the gradient independent of T, as for soft targets. A constant added to all of a query's scores changes
nothing. A large T compares all documents alike; a small one looks at the first places.

Shapes: scores (S, 1) as tables (B, G), the softmax over G without padding. B queries, S sequences, G documents.

Source: listwise softmax: Cao et al. 2007 (ListNet); with a teacher: RocketQAv2, Ren et al. 2021 (arXiv:2110.07367); T²: Hinton
et al. 2015 (arXiv:1503.02531).

Deviations: with T and T² on both sides, which RocketQAv2 has not. Queries of one document, whose share is always 1, do not count.
"""

import math
from typing import ClassVar

from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.schedule import Schedule, at
from mangakd.losses.base import ends
from mangakd.losses.divergence import kl
from mangakd.losses.groups import GroupLoss, Groups, log_shares


class ListwiseKLLoss(GroupLoss):
    """T² · KL(teacher‖student) over the documents of a query, in nats.

    temperature: T > 0, a number or a schedule of progress.

    Raises UserError in `bind`: no teacher, a head that is not one score, T that is not above 0; in `calibrate`: teacher scores
    that fill [0, 1] and do not leave it.
    """

    citation: ClassVar[str] = "Cao et al. 2007, ListNet; Ren et al. 2021, arXiv:2110.07367"
    learns_margins: ClassVar[bool] = True
    unit = "groups"

    def __init__(self, *, weight: Schedule = 1.0, temperature: Schedule = 1.0) -> None:
        super().__init__(weight=weight)
        self.temperature = temperature

    def check_options(self) -> None:
        if not all(0 < t < math.inf for t in ends(self.temperature, self.key("temperature"))):
            raise UserError(
                f"{self.key('temperature')} must be above 0; found {self.temperature}. Set distill.temperature."
            )

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        assert teacher is not None
        t = at(self.temperature, progress)
        log_p, log_q = (log_shares(scores / t, groups.mask) for scores in (teacher, student))
        return t**2 * kl(log_p, log_q)
