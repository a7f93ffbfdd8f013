"""Small students, teachers and their answers, for tests of the loss of next tokens."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mangakd.core.token_logits import Draws, FromStates, LmHead, TokenLogits, TopK

P, D, V, K = 7, 5, 11, 4
EXACT = torch.float64
Case = tuple[FromStates, FromStates, Tensor]


def case(seed: int = 0, dtype: torch.dtype = EXACT, **head: Any) -> Case:
    """Student, teacher (wider, capped) and target tokens."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    student = FromStates(
        normal(P, D).requires_grad_(), LmHead(normal(V, D).requires_grad_(), normal(V).requires_grad_(), **head)
    )
    teacher = FromStates(normal(P, 6), LmHead(normal(V, 6), scale=1.5, soft_cap=4.0))
    return student, teacher, torch.randint(V, (P,), generator=generator)


def leaves(student: FromStates) -> list[Tensor]:
    assert student.head.bias is not None
    return [student.states, student.head.weight, student.head.bias]


def top_k(exact: FromStates, t: float = 1.0, k: int = K) -> TopK:
    log_p = torch.log_softmax(exact.head.logits(exact.states) / t, -1).detach()
    best, ids = log_p.topk(k)
    return TopK(ids, best, log_p.scatter(1, ids, -torch.inf).logsumexp(-1), t)


def draws(exact: FromStates, t: float = 1.0, number: int = 9) -> Draws:
    p = torch.softmax(exact.head.logits(exact.states) / t, -1).detach()
    return Draws(torch.multinomial(p, number, replacement=True, generator=torch.Generator().manual_seed(0)), t)


ANSWERS: dict[str, Callable[[FromStates, float], TokenLogits]] = {
    "states": lambda exact, t: exact, "topk": top_k, "draws": draws
}  # fmt: skip
