"""Margin hinge: the student must prefer a document at least as much as the teacher does, and `margin` more.

Formula, with student scores s and teacher scores t of a query's documents, over pairs P of a better document i and another j:

    each = 1/|P| Σ_(i,j) ∈ P max(0, (t_i − t_j) − (s_i − s_j) + margin)
    pairs = all      better: where the teacher's score is higher   count = queries with two documents or more
    pairs = graded   better: where the grade is higher             count = queries with two different grades

A student that prefers the better document by more than the teacher is not pulled back, as it is by margin_mse. Documents of equal
score (or grade) are no pair. A constant added to all of a query's scores changes nothing.

Shapes: scores (S, 1) as tables (B, G); grades (B, G). B queries, S sequences, G documents.

Source: a hinge on the difference of two scores: Joachims 2002 (SVMrank); with the teacher's difference as the margin: compare
Hofstätter et al. 2020 (arXiv:2010.02666).

Deviations: this form is ours (MangaAssist's design). The mean is taken over the pairs of a query first.
"""

from typing import ClassVar

from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.schedule import Schedule
from mangakd.losses.groups import GroupLoss, Groups, differences, mean


class MarginHingeLoss(GroupLoss):
    """Hinge on how much less than the teacher the student prefers the better document.

    margin: at least 0, added to the teacher's difference. pairs: all | graded, what says which document is better.

    Raises UserError in `bind`: no teacher, a head that is not one score, an option outside its range; in `calibrate`: teacher
    scores that fill [0, 1] and do not leave it.
    """

    citation: ClassVar[str] = "Joachims 2002, SVMrank; Hofstätter et al. 2020, arXiv:2010.02666"
    learns_margins: ClassVar[bool] = True
    unit = "groups"

    def __init__(self, *, weight: Schedule = 1.0, margin: float = 0.0, pairs: str = "all") -> None:
        super().__init__(weight=weight)
        self.margin = margin
        self.pairs = pairs

    def check_options(self) -> None:
        if not isinstance(self.margin, int | float) or not 0 <= self.margin < float("inf"):
            raise UserError(f"{self.key('margin')} must be a number of at least 0; found {self.margin}.")
        self.unit = self.unit_of_pairs()

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        assert teacher is not None
        margins = differences(teacher)
        better = groups.pairs() & (margins > 0) if self.pairs == "all" else groups.better()
        return mean((margins - differences(student) + self.margin).clamp(min=0), better)
