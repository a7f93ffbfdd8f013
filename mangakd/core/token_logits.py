"""`TokenLogits`: what a language model says of the next token at each target position, without the logits (P, V).

A student answers with `FromStates`. A teacher answers with `FromStates`, or with what a store holds of it: `TopK` or `Draws`.

Shapes: P target positions of the micro-batch in row-major order; V vocabulary, D hidden size, K stored tokens, N draws.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class LmHead:
    """The last layer of a language model, from final hidden states to logits.

        z = scale · (weight · h + bias)        logits = soft_cap · tanh(z / soft_cap), or z where soft_cap is None

    weight: (V, D). bias: (V) or None. dtype: of the matrix products. None becomes autocast's dtype if the head is made under
    autocast, else fp32 (float64 for weights in float64): losses themselves run without autocast (losses/loss_set.py).
    Raises ValueError for sizes that do not fit and for a soft_cap that is not above 0.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.weight.dim() != 2 or (self.bias is not None and self.bias.shape != self.weight.shape[:1]):
            shape = None if self.bias is None else tuple(self.bias.shape)
            raise ValueError(
                f"a head of weight (V, D) and bias (V) cannot be made of {tuple(self.weight.shape)} and {shape}"
            )
        if self.soft_cap is not None and not self.soft_cap > 0:
            raise ValueError(f"soft_cap must be above 0 or None; found {self.soft_cap}")
        if self.dtype is None:
            object.__setattr__(self, "dtype", _product_dtype(self.weight))

    @property
    def vocabulary(self) -> int:
        """V."""
        return len(self.weight)

    def cut(self, vocabulary: int) -> "LmHead":
        """The head of the first `vocabulary` tokens."""
        bias = None if self.bias is None else self.bias[:vocabulary]
        return replace(self, weight=self.weight[:vocabulary], bias=bias)

    def ready(self) -> "LmHead":
        """The same head without gradients and with its weight in `dtype`, so that chunks need not convert it again."""
        return replace(
            self, weight=self.weight.detach().to(self.dtype), bias=None if self.bias is None else self.bias.detach()
        )

    def logits(self, states: Tensor, out: Tensor | None = None) -> Tensor:
        """(N, D) → (N, V), at least fp32. out: where to write them, without a graph."""
        assert self.dtype is not None
        z = product(states.to(self.dtype), self.weight.to(self.dtype).T, out)
        z = z if self.bias is None else z.add_(self.bias)
        z = z if self.scale == 1.0 else z.mul_(self.scale)
        return z if self.soft_cap is None else torch.mul(torch.tanh(z / self.soft_cap), self.soft_cap, out=out)


@dataclass(frozen=True)
class FromStates:
    """Final hidden states (P, D) and the head that turns them into logits. Exact, at every temperature."""

    states: Tensor
    head: LmHead

    def __post_init__(self) -> None:
        if self.states.dim() != 2 or self.states.shape[1] != self.head.weight.shape[1]:
            raise ValueError(
                f"states must be (P, {self.head.weight.shape[1]}) for this head; found {tuple(self.states.shape)}"
            )

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice) -> "FromStates":
        return FromStates(self.states[rows], self.head)


@dataclass(frozen=True)
class Facts:
    """What a store holds of a teacher's whole distribution at T = 1 beside what it answers with: for its scores, not for losses.

    target: log p of the text's token (P). best: its most probable token (P) int64. best_log_prob: log p of that (P).
    """

    target: Tensor
    best: Tensor
    best_log_prob: Tensor

    def __getitem__(self, rows: slice) -> "Facts":
        return Facts(self.target[rows], self.best[rows], self.best_log_prob[rows])


@dataclass(frozen=True)
class TopK:
    """The K most probable tokens, and the exact mass of all others as one more bucket.

    ids: (P, K) int64, different within a row. log_probs: (P, K). tail: (P), log(1 − Σ_k p_k); -inf where nothing is left.
    temperature: at which the teacher's logits were divided before these probabilities were taken. facts: from a store. The K + 1
    buckets are a coarser distribution: each divergence of them is a true one, and at most that of the whole distribution.
    """

    ids: Tensor
    log_probs: Tensor
    tail: Tensor
    temperature: float = 1.0
    facts: Facts | None = None

    def __post_init__(self) -> None:
        if self.ids.dim() != 2 or self.log_probs.shape != self.ids.shape or self.tail.shape != self.ids.shape[:1]:
            raise ValueError(
                f"ids and log_probs must be (P, K) and tail (P); found {tuple(self.ids.shape)}, "
                f"{tuple(self.log_probs.shape)} and {tuple(self.tail.shape)}"
            )
        _check_ids(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "TopK":
        facts = None if self.facts is None else self.facts[rows]
        return TopK(self.ids[rows], self.log_probs[rows], self.tail[rows], self.temperature, facts)


@dataclass(frozen=True)
class Draws:
    """N tokens drawn from the teacher at each position: ids (P, N) int64, which may repeat.

    temperature: at which the teacher's logits were divided before the tokens were drawn. facts: from a store.
    """

    ids: Tensor
    temperature: float = 1.0
    facts: Facts | None = None

    def __post_init__(self) -> None:
        if self.ids.dim() != 2:
            raise ValueError(f"ids must be (P, N); found {tuple(self.ids.shape)}")
        _check_ids(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "Draws":
        return Draws(self.ids[rows], self.temperature, None if self.facts is None else self.facts[rows])


TokenLogits = FromStates | TopK | Draws
"""`len` is P; a slice is the answer at some of the positions."""


class TokenAnswer(NamedTuple):
    """How a teacher answers, known before anything is loaded. temperature: of its probabilities; None: states give all."""

    kind: type[TokenLogits]
    temperature: float | None = None


def product(one: Tensor, other: Tensor, out: Tensor | None = None) -> Tensor:
    """The matrix product of two tensors in their dtype, and converted to at least fp32. Autocast changes nothing of it."""
    with torch.autocast(one.device.type, enabled=False):
        if out is None or out.dtype == one.dtype:
            return at_least_fp32(torch.mm(one, other, out=out))
        return out.copy_(one @ other)


def add_product(total: Tensor, one: Tensor, other: Tensor) -> None:
    """total += one · other, where total is in at least fp32."""
    with torch.autocast(one.device.type, enabled=False):
        if one.dtype == total.dtype:
            total.addmm_(one, other)
        else:
            total.add_(one @ other)


def at_least_fp32(values: Tensor) -> Tensor:
    """float64 stays, all else becomes fp32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _product_dtype(weight: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return torch.promote_types(weight.dtype, torch.float32)


def _check_ids(ids: Tensor) -> None:
    if ids.dtype != torch.int64:
        raise ValueError(f"ids of tokens must be int64; found {ids.dtype}")
