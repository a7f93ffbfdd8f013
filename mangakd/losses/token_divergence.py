"""Divergences between a teacher's distribution p and a student's q, with their slopes in closed form.

Each takes log p and log q (C, K) over the last axis, both finite (a floor stands for −inf), and gives

    value  (C)      the divergence in nats
    slope  (C, K)   u = q · ∂value/∂q

With q = softmax(z) the gradient at the logits is ∂value/∂z = u − q · Σu, where constants added to ∂value/∂q cancel. So no graph
over (C, K) is needed, and one function serves all tokens of the vocabulary and K + 1 buckets of it alike.

    forward_kl        KL(p‖q)                                  u = −p
    reverse_kl        KL(q‖p)                                  u = q log(q / p)
    jsd               β KL(p‖m) + (1 − β) KL(q‖m),             u = (1 − β) q log(q / m)
                      m = β p + (1 − β) q
    skew_kl           KL(p‖m), m = λ p + (1 − λ) q             u = −(1 − λ) p q / m
    skew_reverse_kl   KL(q‖m), m = (1 − λ) p + λ q             u = q log(q / m) − λ q² / m
    total_variation   ½ Σ |p − q|                              u = −½ q sign(p − q)

Shapes: C positions, K tokens or buckets.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Divergence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(log p, log q) → (value, slope)."""


def floor(dtype: torch.dtype) -> float:
    """What stands for log 0: finite, so that 0 · log 0 is 0, and half the lowest number, so that differences stay finite."""
    return torch.finfo(dtype).min / 2


def forward_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    p = log_p.exp()
    return torch.linalg.vecdot(p, log_p - log_q), p.neg_()


def reverse_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    slope = log_q.exp().mul_(log_q - log_p)
    return slope.sum(-1), slope


def jsd(log_p: Tensor, log_q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    log_m = _mixture(log_p, log_q, beta)
    slope = log_q.exp().mul_(log_q - log_m).mul_(1 - beta)
    return beta * torch.linalg.vecdot(log_p.exp(), log_p - log_m) + slope.sum(-1), slope


def skew_kl(log_p: Tensor, log_q: Tensor, skew: float) -> tuple[Tensor, Tensor]:
    log_m, p = _mixture(log_p, log_q, skew), log_p.exp()
    value = torch.linalg.vecdot(p, log_p - log_m)
    return value, p.mul_((log_q - log_m).exp_()).mul_(skew - 1)


def skew_reverse_kl(log_p: Tensor, log_q: Tensor, skew: float) -> tuple[Tensor, Tensor]:
    over, q = log_q - _mixture(log_p, log_q, 1 - skew), log_q.exp()  # log(q / m)
    return torch.linalg.vecdot(q, over), q.mul_(over - skew * over.exp())


def total_variation(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    q = log_q.exp()
    apart = log_p.exp().sub_(q)
    return apart.abs().sum(-1) / 2, q.mul_(apart.sign_()).mul_(-0.5)


def _mixture(log_p: Tensor, log_q: Tensor, of_p: float) -> Tensor:
    """log(of_p · p + (1 − of_p) · q)."""
    return torch.logaddexp(log_p + math.log(of_p), log_q + math.log(1 - of_p))


def divergence(name: str, jsd_beta: float, skew: float) -> Divergence:
    """The divergence of one of NAMES. jsd_beta: β. skew: λ."""
    if name == "jsd":
        return lambda log_p, log_q: jsd(log_p, log_q, jsd_beta)
    if name in _SKEWED:
        return lambda log_p, log_q: _SKEWED[name](log_p, log_q, skew)
    return _PLAIN[name]


_PLAIN: dict[str, Divergence] = {
    "forward_kl": forward_kl, "reverse_kl": reverse_kl, "total_variation": total_variation
}  # fmt: skip
_SKEWED = {"skew_kl": skew_kl, "skew_reverse_kl": skew_reverse_kl}
NAMES = (*_PLAIN, "jsd", *_SKEWED)
