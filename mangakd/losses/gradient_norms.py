"""How hard each loss term pulls at the student: the norm of its own gradient over an optimizer step.

    norm_name = ‖ Σ over micro-batches, mean over ranks of ∂(weight_name · term_name)/∂θ ‖₂,   θ: the student's parameters

The value of a term does not show how hard the term pulls: a KL of 0.1 times T² may outweigh a cross-entropy of 1. Gradients of
micro-batches add up, norms do not; so the gradient of each term is kept until the step is complete. This costs one backward pass
for each term.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


class GradientNorms:
    """`add` each micro-batch of a step before its graph is freed, then `taken`."""

    def __init__(self, student: nn.Module) -> None:
        self._student = student
        self._sums: dict[str, Tensor] = {}

    def add(self, weighted: Mapping[str, Tensor], share: float) -> None:
        """weighted: name → weight · term, with its graph. share: of the step that this micro-batch is."""
        weights = [parameter for parameter in self._student.parameters() if parameter.requires_grad]
        for name, term in weighted.items():
            flat = share * _flat(_gradients(term, weights), weights)
            self._sums[name] = self._sums[name] + flat if name in self._sums else flat

    def take(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """name → norm, and begins anew. mean: over ranks, of a tensor."""
        sums, self._sums = self._sums, {}
        return {name: mean(gradient).norm() for name, gradient in sums.items()}


def _gradients(term: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not term.requires_grad:  # a term that only watches
        return [None] * len(weights)
    with torch.autocast(term.device.type, enabled=False):
        return torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)


def _flat(gradients: Iterable[Tensor | None], parameters: Iterable[Tensor]) -> Tensor:
    """One vector in fp32; a parameter that a term does not reach has a gradient of 0."""
    parts = (torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True))
    return torch.cat([part.flatten().float() for part in parts])
