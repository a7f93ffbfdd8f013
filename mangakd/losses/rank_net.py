"""RankNet: for each two documents, the student learns which has the higher grade. Runs without a teacher.

Formula, with student scores s and grades g of a query's documents:

    each = 1/|P| Σ_(i,j) ∈ P log(1 + exp(−(s_i − s_j))),  P: all (i, j) with g_i > g_j       count = queries with such a pair

The natural logarithm. Documents of equal grade are no pair. A constant added to all of a query's scores changes nothing.

Shapes: scores (S, 1) as tables (B, G); grades (B, G), NaN for none. B queries, S sequences, G documents.

Source: Burges et al. 2005 (RankNet, ICML); for cross-encoders: Zhuang et al. 2022 (RankT5, arXiv:2210.10634).

Deviations: the paper's targets of 1/2 for ties are left out, and its scale of the scores is 1. The mean is taken over a query's
pairs first.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from mangakd.losses.groups import GroupLoss, Groups, differences, mean


class RankNetLoss(GroupLoss):
    """Logistic loss of the pairs of different grade, in nats.

    Raises UserError in `bind`: a head that is not one score.
    """

    citation: ClassVar[str] = "Burges et al. 2005, Learning to rank using gradient descent"
    needs_teacher: ClassVar[bool] = False
    unit = "ordered"

    def each(self, student: Tensor, teacher: Tensor | None, groups: Groups, progress: float) -> Tensor:
        return mean(softplus(-differences(student)), groups.better())
