"""Score MSE: the student learns the teacher's score of each document by itself.

Formula, with student scores s and teacher scores t of a query's n documents:

    each = 1/n Σ_i (s_i − t_i)²                            count = queries

Unlike the other ranking losses it keeps the offset of the teacher's scores, which a threshold on scores needs. It learns from
queries of one document, too.

Shapes: scores (S, 1) as tables (B, G). B queries, S sequences, G documents.

Source: regression to the teacher's logits: Ba and Caruana 2014 (arXiv:1312.6184).

Deviations: the mean is taken over the documents of a query first.
"""

from typing import ClassVar

from torch import Tensor

from mangakd.losses.groups import GroupLoss, Groups, mean


class ScoreMSELoss(GroupLoss):
    """Squared error of each score.

    Raises UserError in `bind`: no teacher, a head that is not one score.
    """

    citation: ClassVar[str] = "Ba and Caruana 2014, arXiv:1312.6184"

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        assert teacher is not None
        return mean((student - teacher).square(), groups.mask)
