"""`Outputs`: the one interface between student, teacher and losses.

A loss never sees a Hugging Face object, and a teacher never sees a loss. Both exchange these plain tensors.
Shapes: B batch, T tokens, C classes, D hidden size or dimensions of a vector, H heads, M ensemble members, d = D / H.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mangakd.core.spec import Kind
from mangakd.core.token_logits import TokenLogits

Batch = Mapping[str, Any]
"""What a loader yields of B rows with S sequences: `student` and `teacher` (model inputs, the same object when one tokenizer
serves both), `key` (S) int64 content hash of the teacher's tokens, the task's columns (B, …), such as `labels` (B) int64 or
(B, C) float. Where rows own several sequences (data/encoded.py) also `first` (B + 1), and in the inputs the tokens of each
sequence under LENGTHS (S). For heads of tokens the inputs hold TARGETS (S, T) bool, and the batch `next` (P), the tokens at these
positions in row-major order. In training also `scale`, unit of counting → this micro-batch's share of its optimizer step."""
LENGTHS = "sequence_lengths"  # no architecture of transformers has an input of this name
OWN_TEXT = "own_text"  # of a batch: whether the student has written its targets; absent where it never writes
TARGETS = "targets"  # the tokens that a language model learns to predict: never position 0, never padding


def each_tensor(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Apply `change` to the tensors of a batch. If teacher and student share their inputs, the result shares them, too."""
    tensors = {name: change(value) for name, value in batch.items() if isinstance(value, Tensor)}
    student = {name: change(value) for name, value in batch["student"].items()}
    same = batch["teacher"] is batch["student"]
    teacher = student if same else {name: change(value) for name, value in batch["teacher"].items()}
    return {**batch, **tensors, "student": student, "teacher": teacher}


_NEVER, _FAR = 1e-30, -1e30  # a probability in place of 0 and a score in place of -inf


@dataclass(frozen=True)
class AttentionTap:
    """The inputs of one attention layer, from which losses compute its maps and relations without dropout.

    query, key, value: (B, H, T, d). `probs` (B, H, T, T) replaces them if the model supports eager attention only.
    allowed: the layer's mask, bool or additive, broadcastable to (B, H, T, T); it includes a sliding window.
    """

    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    scale: float = 1.0
    probs: Tensor | None = None
    allowed: Tensor | None = None

    def scores(self, mask: Tensor) -> Tensor:
        """scale · Q Kᵀ before masking and softmax, fp32, (B, H, T, T); 0 in padded rows and columns. mask: (B, T)."""
        if self.query is None or self.key is None:
            raise ValueError("this layer gave probabilities only (eager fallback); raw scores need query and key")
        return self.scale * (unpadded(self.query, mask) @ unpadded(self.key, mask).transpose(-1, -2))

    def log_maps(self, mask: Tensor) -> Tensor:
        """log softmax over valid keys of the scores, fp32, (B, H, T, T); padded columns are -inf. mask: (B, T).

        Keys outside the attention window get log(1e-30) instead of -inf, so that losses can subtract two maps without producing
        NaN. Probabilities of the eager fallback below 1e-30 get the same value: an exact 0 may be either case.
        """
        columns = key_columns(mask.bool())[:, None, None, :]
        outside = self._outside()
        scores = self._log_probs(mask.bool()) if self.probs is not None else self._masked_scores(mask, outside)
        log_maps = torch.log_softmax(scores.masked_fill(~columns, float("-inf")), dim=-1)
        if outside is not None:
            log_maps = log_maps.masked_fill(outside, math.log(_NEVER))
        return log_maps.masked_fill(~columns, float("-inf"))

    def _log_probs(self, mask: Tensor) -> Tensor:
        assert self.probs is not None
        return self.probs.float().masked_fill(~cells(mask), 0.0).clamp_min(_NEVER).log()

    def _outside(self) -> Tensor | None:
        """The keys that the layer's mask excludes, bool. An additive mask holds -inf or the lowest number of its dtype there."""
        if self.allowed is None or self.allowed.dtype == torch.bool:
            return None if self.allowed is None else ~self.allowed
        return self.allowed <= torch.finfo(self.allowed.dtype).min / 2

    def _masked_scores(self, mask: Tensor, outside: Tensor | None) -> Tensor:
        """Scores under the layer's mask. All are finite, because the gradient of a softmax over -inf only is NaN."""
        scores = self.scores(mask)
        if self.allowed is None or outside is None:
            return scores
        if self.allowed.dtype != torch.bool:
            scores = scores + self.allowed.float()
        return scores.masked_fill(outside, _FAR)


def unpadded(states: Tensor, mask: Tensor) -> Tensor:
    """fp32 states (B, T, D) or (B, H, T, d) with 0 at padded positions. mask: (B, T).

    Call this before any arithmetic: a model's states at padding may be NaN, and 0 · NaN would reach the gradient.
    """
    padded = ~mask.bool().view(len(mask), *[1] * (states.dim() - 3), mask.shape[1], 1)
    return states.float().masked_fill(padded, 0.0)


def key_columns(mask: Tensor) -> Tensor:
    """Key columns to attend to, (B, T): the mask, or all columns for an example without tokens.

    A softmax over no column is NaN. An example without tokens has no valid query row either, so its maps are never read.
    """
    return mask | ~mask.any(dim=-1, keepdim=True)


def cells(mask: Tensor) -> Tensor:
    """Valid query rows × valid key columns, (B, 1, T, T) bool."""
    return (mask[:, :, None] & mask[:, None, :])[:, None]


@dataclass(frozen=True)
class Outputs:
    """One model's answer to one batch.

    logits: (B, C); None for heads of vectors and tokens. hidden: layer → (B, T, D), 0 is the embedding output and 1…L the layers.
    attention: layer (1…L) → tap. mask: (B, T), 1 for real tokens. members: (M, B, C) logits of an ensemble with their `weights`
    (M). vector: (B, D) of a head of vectors, None for others. tokens: of a head of tokens, at the P target positions.
    Of a model with an encoder and a decoder, `encoder_layers` says how many of the layers are the encoder's, the first ones, and
    `targets` (B, T) bool marks the tokens that the decoder reads. The states of a layer are at the places of its own tokens, and
    0 elsewhere; layer 0 is the encoder's.
    """

    logits: Tensor | None
    mask: Tensor
    hidden: Mapping[int, Tensor] = field(default_factory=dict)
    attention: Mapping[int, AttentionTap] = field(default_factory=dict)
    members: Tensor | None = None
    weights: Tensor | None = None
    vector: Tensor | None = None
    tokens: TokenLogits | None = None
    targets: Tensor | None = None
    encoder_layers: int = 0

    def mask_of(self, layer: int) -> Tensor:
        """The tokens that a layer has states of, (B, T) bool."""
        mask = self.mask.bool()
        if self.targets is None:
            return mask
        return mask & (self.targets if layer > self.encoder_layers else ~self.targets)

    @classmethod
    def of(cls, kind: Kind, answer: Tensor, mask: Tensor) -> "Outputs":
        """Outputs that hold the answer of a head of this kind alone."""
        return cls(None, mask, vector=answer) if kind == "vector" else cls(answer, mask)

    @property
    def answer(self) -> Tensor:
        """The head's own numbers: logits (B, C), or vectors (B, D). A head of tokens has none: its logits never exist whole."""
        answer = self.vector if self.logits is None else self.logits
        assert answer is not None
        return answer

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        """log softmax(logits / T), fp32, (B, C); for an ensemble log Σ_m w_m softmax(z_m / T), exact at every T."""
        if self.members is None:
            return torch.log_softmax(self.answer.float() / temperature, dim=-1)
        return mixture(torch.log_softmax(self.members.float() / temperature, dim=-1), self._weights())

    def log_sigmoid(self, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """(log p, log(1 − p)) per label with p = sigmoid(logits / T), fp32, each (B, C); for heads with many labels."""
        if self.members is None:
            scaled = self.answer.float() / temperature
            return torch.nn.functional.logsigmoid(scaled), torch.nn.functional.logsigmoid(-scaled)
        scaled = self.members.float() / temperature
        on, off = torch.nn.functional.logsigmoid(scaled), torch.nn.functional.logsigmoid(-scaled)
        return mixture(on, self._weights()), mixture(off, self._weights())

    def _weights(self) -> Tensor:
        assert self.members is not None and self.weights is not None
        return self.weights.to(self.members.device)


def mixture(log_values: Tensor, weights: Tensor) -> Tensor:
    """log Σ_m w_m exp(log_values_m) over the first axis: (M, …) and (M) → (…). A weight of 0 ignores a member."""
    shape = (-1,) + (1,) * (log_values.dim() - 1)
    return torch.logsumexp(log_values + weights.float().log().view(shape), dim=0)
