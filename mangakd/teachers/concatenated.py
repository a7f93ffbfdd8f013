"""`ConcatenatedTeacher`: the vectors of several teachers side by side, as one wide vector.

Formula, with the members' vectors v_m of length 1 and weights w_m that sum to 1:

    v = [√w_1 · v_1, …, √w_M · v_M]      cos(v, v') = Σ_m w_m cos(v_m, v'_m)

So the similarities of the ensemble are the weighted mean of its members' similarities, whatever their widths and spaces are.
A member is a live model or a file of vectors; a store keeps the vectors without weights, so that one store serves all weights.
Shapes: v_m (S, D_m), v (S, Σ D_m). S sequences, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.spec import Head
from mangakd.teachers.base import SeveralProviders, TeacherProvider


class ConcatenatedTeacher(SeveralProviders):
    """providers: of vectors. weights: M numbers that sum to 1; None leaves each part at length 1, as a store keeps it.

    Raises UserError for models that read with different tokenizers.
    """

    word: ClassVar[str] = "concatenated"

    def __init__(self, providers: Sequence[TeacherProvider], weights: Tensor | None = None) -> None:
        super().__init__(providers)
        self.weights = weights
        specs = [provider.spec for provider in self._providers]
        vocabularies = {spec.vocabulary: spec.name for spec in specs if spec.layers}
        if len(vocabularies) > 1:
            raise UserError(
                f"the members of the teacher read with different tokenizers ({', '.join(vocabularies.values())}). Write the "
                "vectors of one of them to a file, and give the file in teacher.paths."
            )
        self.widths = [spec.head.outputs for spec in specs]
        first = next((spec for spec in specs if spec.layers), specs[0])
        self.spec = replace(first, name=f"concatenation of {len(specs)}", head=Head("vector", sum(self.widths)))

    def __call__(self, batch: Batch) -> Outputs:
        vectors = [F.normalize(provider(batch).answer.float(), dim=-1) for provider in self._providers]
        vector = torch.cat(vectors, dim=-1)
        if self.weights is not None:
            vector = vector * factors(self.weights, self.widths).to(vector.device)
        return Outputs(None, batch["teacher"]["attention_mask"], vector=vector)


def factors(weights: Tensor, widths: Sequence[int]) -> Tensor:
    """√w_m for each dimension of member m, (Σ D_m)."""
    return weights.sqrt().repeat_interleave(torch.tensor(widths))
