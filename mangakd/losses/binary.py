"""Binary relevance: the student learns of each document by itself whether it is relevant. Runs without a teacher.

Formula, with student scores s of a query's n documents, and y_i = 1 where the grade of document i is at least `relevant`, else 0:

    each = −1/n Σ_i [y_i log σ(s_i) + (1 − y_i) log(1 − σ(s_i))]        count = queries with grades

So σ(s) is the probability that a document is relevant, which can be shown to a user or compared with a threshold. It learns from
queries of one document and from queries without a relevant one.

Shapes: scores (S, 1) as tables (B, G); grades (B, G), NaN for none. B queries, S sequences, G documents.

Source: pointwise fine-tuning of a cross-encoder: Nogueira and Cho 2019 (arXiv:1901.04085).

Deviations: one output and a sigmoid in place of two outputs and a softmax. The mean is taken over the documents of a query first.
"""

import math
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mangakd.core.errors import UserError
from mangakd.core.schedule import Schedule
from mangakd.losses.groups import GroupLoss, Groups, mean


class BinaryLoss(GroupLoss):
    """Cross-entropy of relevant and not relevant, in nats.

    relevant: the least grade of a relevant document.

    Raises UserError in `bind`: a head that is not one score, an option that is no number.
    """

    citation: ClassVar[str] = "Nogueira and Cho 2019, arXiv:1901.04085"
    needs_teacher: ClassVar[bool] = False
    unit = "labels"

    def __init__(self, *, weight: Schedule = 1.0, relevant: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.relevant = relevant

    def check_options(self) -> None:
        if not isinstance(self.relevant, int | float) or not math.isfinite(self.relevant):
            raise UserError(f"{self.key('relevant')} must be a number; found {self.relevant}.")

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        targets = (groups.known_grades >= self.relevant).float()
        return mean(binary_cross_entropy_with_logits(student, targets, reduction="none"), groups.mask)
