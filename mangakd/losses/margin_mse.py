"""Margin-MSE: the student learns by how much the teacher prefers one document to another, not the scores themselves.

Formula, with student scores s and teacher scores t of a query's documents, over pairs P of them:

    each = 1/|P| Σ_(i,j) ∈ P ((s_i − s_j) − (t_i − t_j))²
    pairs = all      P: every two documents             count = queries with two documents or more
    pairs = graded   P: a higher grade and a lower one  count = queries with two different grades

A constant added to all of a query's scores changes nothing. The loss keeps the size of the teacher's differences: a teacher whose
scores went through a sigmoid is refused, since its large differences are gone.

Shapes: scores (S, 1) as tables (B, G); grades (B, G). B queries, S sequences, G documents.

Source: Hofstätter et al. 2020 (arXiv:2010.02666).

Deviations: the paper has one relevant and one other document a query, which is pairs=graded. The mean is taken over the pairs of
a query first, so that a long list of documents weighs no more than a short one.
"""

from typing import ClassVar

from torch import Tensor

from mangakd.core.schedule import Schedule
from mangakd.losses.groups import GroupLoss, Groups, differences, mean


class MarginMSELoss(GroupLoss):
    """Squared error of the differences between a query's scores.

    pairs: all | graded, which two documents are compared; graded needs grades.

    Raises UserError in `bind`: no teacher, a head that is not one score, an unknown option; in `calibrate`: teacher scores that
    fill [0, 1] and do not leave it.
    """

    citation: ClassVar[str] = "Hofstätter et al. 2020, arXiv:2010.02666"
    learns_margins: ClassVar[bool] = True
    unit = "groups"

    def __init__(self, *, weight: Schedule = 1.0, pairs: str = "all") -> None:
        super().__init__(weight=weight)
        self.pairs = pairs

    def check_options(self) -> None:
        self.unit = self.unit_of_pairs()

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        assert teacher is not None
        pairs = groups.pairs() if self.pairs == "all" else groups.better()
        return mean((differences(student) - differences(teacher)).square(), pairs)
