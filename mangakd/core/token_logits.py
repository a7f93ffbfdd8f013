"""`TokenLogits`: what a language model says of the next token at each target position, without the logits (P, V).

Shapes: P target positions of the micro-batch in row-major order; V vocabulary, D hidden size, K stored tokens, N draws.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LmHead:
    """The last layer of a language model, from final hidden states to logits.

        z = scale · (weight · h + bias)        logits = soft_cap · tanh(z / soft_cap), or z where soft_cap is None

    weight: (V, D). bias: (V) or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    def logits(self, states: Tensor) -> Tensor:
        """(…, D) → (…, V)."""
        z = torch.nn.functional.linear(states, self.weight, self.bias) * self.scale
        return z if self.soft_cap is None else self.soft_cap * torch.tanh(z / self.soft_cap)


@dataclass(frozen=True)
class FromStates:
    """Final hidden states (P, D) and the head that turns them into logits. Exact, at every temperature."""

    states: Tensor
    head: LmHead


@dataclass(frozen=True)
class TopK:
    """ids: (P, K) int64. log_probs: (P, K). tail: (P), the log of the mass of all other tokens."""

    ids: Tensor
    log_probs: Tensor
    tail: Tensor


@dataclass(frozen=True)
class Draws:
    """N tokens drawn from the teacher at each position: ids (P, N) int64."""

    ids: Tensor


TokenLogits = FromStates | TopK | Draws
