"""`Outputs`: the one currency between student, teacher and losses.

A loss never sees a Hugging Face object and a teacher never sees a loss; both speak in these plain tensors.
Shapes: B batch, T tokens, C classes, D hidden size, H heads, M ensemble members, d = D / H.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Batch = Mapping[str, Any]
"""What a loader yields: `student` and `teacher` (model inputs, the same object when one tokenizer serves both),
`labels` (B) int64 or (B, C) float, `key` (B) int64 content hash of the teacher's tokens; in training also `scale`, unit of
counting → this micro-batch's share of its optimizer step."""


def each_tensor(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with `change` applied to its tensors; a teacher side that is the student side stays shared."""
    changed = {name: change(value) for name, value in batch.items() if isinstance(value, Tensor)}
    student = {name: change(value) for name, value in batch["student"].items()}
    shared = batch["teacher"] is batch["student"]
    teacher = student if shared else {name: change(value) for name, value in batch["teacher"].items()}
    return {**batch, **changed, "student": student, "teacher": teacher}


_NEVER, _FAR = 1e-30, -1e30  # a probability and a score that stand for 0 and -inf


@dataclass(frozen=True)
class AttentionTap:
    """What one attention layer computed with: enough to rebuild its maps and relations without dropout.

    query, key, value: (B, H, T, d). `probs` (B, H, T, T) is set instead where only eager attention was available.
    allowed: the mask the layer used, bool or added to the scores, broadcastable to (B, H, T, T); a sliding window is in it.
    """

    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    scale: float = 1.0
    probs: Tensor | None = None
    allowed: Tensor | None = None

    def scores(self) -> Tensor:
        """scale · Q Kᵀ before masking and softmax, fp32, (B, H, T, T)."""
        if self.query is None or self.key is None:
            raise ValueError("this layer gave probabilities only (eager fallback); raw scores need query and key")
        return self.scale * (self.query.float() @ self.key.float().transpose(-1, -2))

    def log_maps(self, mask: Tensor) -> Tensor:
        """log softmax over valid keys of the scores, fp32, (B, H, T, T); padded columns are -inf. mask: (B, T).

        A valid key outside a layer's window gets log 1e-30, not -inf: a loss may subtract it from another model's.
        """
        columns = mask.bool()[:, None, None, :]
        scores = self.probs.float().clamp_min(_NEVER).log() if self.probs is not None else self._masked_scores()
        log_maps = torch.log_softmax(scores.masked_fill(~columns, float("-inf")), dim=-1)
        return log_maps.clamp_min(math.log(_NEVER)).masked_fill(~columns, float("-inf"))

    def _masked_scores(self) -> Tensor:
        """Scores under the layer's own mask. Finite: the gradient of a softmax over nothing but -inf is NaN."""
        scores = self.scores()
        if self.allowed is None:
            return scores
        if self.allowed.dtype == torch.bool:
            return scores.masked_fill(~self.allowed, _FAR)
        return (scores + self.allowed.float()).clamp_min(_FAR)


@dataclass(frozen=True)
class Outputs:
    """One model's answer to one batch.

    logits: (B, C). hidden: layer → (B, T, D), 0 is the embedding output and 1…L the layers. attention: layer (1…L) →
    tap. mask: (B, T), 1 for real tokens. members: (M, B, C) logits of an ensemble with their `weights` (M).
    """

    logits: Tensor
    mask: Tensor
    hidden: Mapping[int, Tensor] = field(default_factory=dict)
    attention: Mapping[int, AttentionTap] = field(default_factory=dict)
    members: Tensor | None = None
    weights: Tensor | None = None

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        """log softmax(logits / T), fp32, (B, C); for an ensemble log Σ_m w_m softmax(z_m / T), exact at every T."""
        if self.members is None:
            return torch.log_softmax(self.logits.float() / temperature, dim=-1)
        return mixture(torch.log_softmax(self.members.float() / temperature, dim=-1), self._weights())

    def log_sigmoid(self, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """(log p, log(1 − p)) per label with p = sigmoid(logits / T), fp32, each (B, C); for heads with many labels."""
        if self.members is None:
            scaled = self.logits.float() / temperature
            return torch.nn.functional.logsigmoid(scaled), torch.nn.functional.logsigmoid(-scaled)
        scaled = self.members.float() / temperature
        on, off = torch.nn.functional.logsigmoid(scaled), torch.nn.functional.logsigmoid(-scaled)
        return mixture(on, self._weights()), mixture(off, self._weights())

    def _weights(self) -> Tensor:
        assert self.members is not None and self.weights is not None
        return self.weights.to(self.members.device)


def mixture(log_values: Tensor, weights: Tensor) -> Tensor:
    """log Σ_m w_m exp(log_values_m) over the first axis: (M, …) and (M) → (…). A weight of 0 leaves a member out."""
    shape = (-1,) + (1,) * (log_values.dim() - 1)
    return torch.logsumexp(log_values + weights.float().log().view(shape), dim=0)
