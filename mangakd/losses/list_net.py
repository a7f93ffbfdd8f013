"""ListNet: the student learns to share one vote among the documents of a query as the grades do. Runs without a teacher.

Formula, with student scores s and grades g of a query's documents:

    each = KL(softmax(sharpness · g) ‖ softmax(s))         count = queries with two different grades

sharpness = 1 is the paper's. A larger one gives the best grade more of the vote: one document of grade 1 among nine of grade 0
has a share of 0.23 at 1 and of 0.94 at 5. A constant added to all of a query's scores changes nothing. This loss has no
temperature.

Shapes: scores (S, 1) as tables (B, G); grades (B, G), NaN for none. B queries, S sequences, G documents.

Source: Cao et al. 2007 (ListNet, ICML); for cross-encoders: Zhuang et al. 2022 (RankT5, arXiv:2210.10634).

Deviations: the KL in place of the cross-entropy, so that a perfect student has 0; the gradients are equal. Queries whose grades
are all equal say nothing about an order and do not count.
"""

import math
from typing import ClassVar

from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.schedule import Schedule
from mangakd.losses.divergence import kl
from mangakd.losses.groups import GroupLoss, Groups, log_shares


class ListNetLoss(GroupLoss):
    """KL(grades‖student) over the documents of a query, in nats.

    sharpness: above 0, the factor of the grades before their softmax.

    Raises UserError in `bind`: a head that is not one score, an option outside its range.
    """

    citation: ClassVar[str] = "Cao et al. 2007, Learning to rank: from pairwise approach to listwise approach"
    needs_teacher: ClassVar[bool] = False
    unit = "ordered"

    def __init__(self, *, weight: Schedule = 1.0, sharpness: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.sharpness = sharpness

    def check_options(self) -> None:
        if not isinstance(self.sharpness, int | float) or not 0 < self.sharpness < math.inf:
            raise UserError(f"{self.key('sharpness')} must be a number above 0; found {self.sharpness}.")

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        targets = groups.known_grades * self.sharpness
        return kl(log_shares(targets, groups.mask), log_shares(student, groups.mask))
