"""Vector: each text's vector becomes the teacher's.

Formula, with the student's vector s, the teacher's vector t, and s', t' that are brought to one width:

    cosine   1 − cos(s', t')
    mse      Σ_d (s'_d − t'_d)²         2 − 2 cos(s', t') for vectors of length 1
    count = texts

    width = linear   s' = W s + b, t' = t          W, b learn with the student and are left out of its folder
    width = pca      s' = s, t' = normalize((t − μ) C)   μ, C: the teacher's mean and main directions on the training texts
    width = none     s' = s, t' = t
    width = auto     none for equal widths, else linear

W helps to learn and is not part of the student: what is scored and saved is s. With pca, and with none, s itself resembles the
teacher's vector. With `dims` each prefix learns: through a W of its own, or towards as many main directions (pca).
mse leaves the lengths of the vectors as the models give them; with pca and with `dims`, the student's vectors are normalised.

Shapes: s (S, D_s), t (S, D_t); W (D_t, d), C (D_t, D_s). In a batch of texts S is its rows, (B, D_s). S sequences, D dimensions.

Source: mse: Reimers and Gurevych 2020 (arXiv:2004.09813); prefixes: Kusupati et al. 2022 (arXiv:2205.13147).

Deviations: the squared error is a sum over dimensions, not a mean, so that the width does not change its size. pca is centred
when it is applied, too.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossOutput
from mangakd.losses.prefixes import PrefixLoss, prefix


class VectorLoss(PrefixLoss):
    """Distance between the vectors of student and teacher.

    compare: cosine | mse. width: auto | linear | pca | none, how the two widths are made one. dims: prefixes that learn, or null
    for the whole vector.

    Raises UserError in `bind`: no teacher, heads that are no vectors, an option outside its range, widths that differ without
    a way to make them one; in `calibrate`: fewer vectors than directions.
    """

    citation: ClassVar[str] = (
        "Reimers and Gurevych 2020, arXiv:2004.09813; prefixes: Kusupati et al. 2022, arXiv:2205.13147"
    )
    unit = "sequences"
    mean: Tensor
    directions: Tensor

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        compare: str = "cosine",
        width: str = "auto",
        dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__(weight=weight, dims=dims)
        self.compare = compare
        self.width = width
        self.projections = nn.ModuleDict()
        self.rotates = False

    def check_options(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        assert teacher is not None
        self.check_choice("compare", ("cosine", "mse"))
        self.check_choice("width", ("auto", "linear", "pca", "none"))
        ours, theirs = student.head.outputs, teacher.head.outputs
        equal = self.sizes == (theirs,)
        if self.width == "none" and not equal:
            raise UserError(
                f"{self.key('width')}=none needs equal widths: the student's prefixes have {list(self.sizes)} dimensions, and "
                f"{teacher.name} has {theirs}. Set {self.key('width')}=auto."
            )
        if self.width == "pca" and ours > theirs:
            raise UserError(
                f"{self.key('width')}=pca gives the student of {ours} dimensions as many directions, and {teacher.name} has "
                f"{theirs}. Set {self.key('width')}=linear."
            )
        self.rotates = self.width == "pca"
        if self.rotates:
            self.calibrated_on = "train"
            self.register_buffer("mean", torch.zeros(theirs))
            self.register_buffer("directions", torch.zeros(theirs, ours))
        elif self.width == "linear" or not equal:
            self.projections = nn.ModuleDict({str(size): nn.Linear(size, theirs) for size in self.sizes})

    def calibrate(self, teacher: Tensor) -> None:
        """The mean and the main directions of the teacher's vectors (N, D_t), from large to small variance."""
        if not self.rotates:
            return
        rank = self.directions.shape[1]
        if len(teacher) <= rank:
            raise UserError(
                f"{self.key('width')}=pca finds {rank} directions, which needs more than {rank} training texts; there are "
                f"{len(teacher)}. Add texts, or set {self.key('width')}=linear."
            )
        mean, directions = main_directions(teacher, rank)
        self.mean.copy_(mean)
        self.directions.copy_(directions)

    def at(self, size: int, student: Tensor, teacher: Tensor | None, batch: Batch) -> LossOutput:
        assert teacher is not None
        if self.rotates:
            teacher = prefix((teacher - self.mean) @ self.directions, size)
        cut = prefix(student, size) if self.rotates or self.dims is not None else student
        each = self._distance(self._project(cut, size), teacher)
        return LossOutput(each.sum(), torch.tensor(len(each), device=each.device))

    def _project(self, vectors: Tensor, size: int) -> Tensor:
        if not self.projections:
            return vectors
        projection = self.projections[str(size)]
        return projection(vectors.to(next(projection.parameters()).dtype)).float()  # type: ignore[no-any-return]

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.compare == "cosine":
            return 1 - F.cosine_similarity(student, teacher, dim=-1)
        return (student - teacher).square().sum(-1)


def main_directions(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(N, D) → mean (D) and the `count` directions (D, count) of the largest variance, computed in float64.

    Each direction's largest number is positive, so that equal vectors give equal directions.
    """
    rows = vectors.detach().double().cpu()
    mean = rows.mean(0)
    centred = rows - mean
    _, axes = torch.linalg.eigh(centred.T @ centred)  # from small to large
    axes = axes.flip(1)[:, :count]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return mean.float(), (axes * signs).float()
