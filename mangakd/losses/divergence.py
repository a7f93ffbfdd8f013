"""Divergences between two distributions: the pure functions behind the output loss.

All take log probabilities over their last axis. A class that `p` rules out (-inf), or that both rule out, adds 0 to value and
gradient. A class that only `q` rules out makes the KL infinite, as its formula says; JSD stays finite.

Shapes: B rows, C classes, K classes or (on, off).
"""

import math

import torch
from torch import Tensor


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) in nats over the last axis: (…, K) → (…). A cell with p = 0 adds 0, even where q = 0 too."""
    # Both logs are replaced before the subtraction: -inf − -inf is NaN, and 0 · NaN still is, also in the gradient.
    p = log_p.exp()
    dead = p == 0  # also where a finite log underflows: 0 · inf is NaN, too
    return (p * (log_p.masked_fill(dead, 0.0) - log_q.masked_fill(dead, 0.0))).sum(-1)


def jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """β KL(p‖m) + (1 − β) KL(q‖m) with m = β p + (1 − β) q: (…, K) → (…). β = 0.5 is the symmetric one."""
    # logaddexp of two -inf has a NaN gradient. Where both are dead any finite value will do: both KL skip the cell.
    dead = torch.isneginf(log_p) & torch.isneginf(log_q)
    of_p, of_q = math.log(beta), math.log(1 - beta)
    log_m = torch.logaddexp(log_p.masked_fill(dead, 0.0) + of_p, log_q.masked_fill(dead, 0.0) + of_q)
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def dkd(log_p: Tensor, log_q: Tensor, target: Tensor, alpha: float, beta: float) -> Tensor:
    """α · target-class KL + β · non-target-class KL: (B, C) and target (B) int64 → (B).

    The non-target part is 0 where the teacher rules out all classes but the target: it says nothing about them.
    """
    is_target = torch.arange(log_p.shape[-1], device=log_p.device) == target[:, None]

    def split(log_x: Tensor) -> tuple[Tensor, Tensor]:
        rest = log_x.masked_fill(is_target, float("-inf"))
        # A softmax over nothing but -inf is NaN, also in the gradient.
        none = torch.isneginf(rest).all(-1, keepdim=True)
        some = rest.masked_fill(none, 0.0)
        on, off = log_x.gather(-1, target[:, None]), some.logsumexp(-1, keepdim=True)  # off = log(1 − p_target)
        pair = torch.cat([on, off.masked_fill(none, float("-inf"))], dim=-1)
        return pair, torch.log_softmax(some, dim=-1).masked_fill(none, float("-inf"))

    (pair_p, rest_p), (pair_q, rest_q) = split(log_p), split(log_q)
    return alpha * kl(pair_p, pair_q) + beta * kl(rest_p, rest_q)


def squared(student: Tensor, teacher: Tensor) -> Tensor:
    """(z_student − z_teacher)² per cell; 0 where both are the same infinity (a class or label both rule out or are sure of)."""
    same = student.isinf() & (student == teacher)
    return (student.masked_fill(same, 0.0) - teacher.masked_fill(same, 0.0)).square()
