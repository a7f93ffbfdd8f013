"""A student's distribution over the next token, as each kind of teacher answer lets it be compared.

    Whole     beside FromStates: all V tokens
    Buckets   beside TopK: K tokens, and all others as one bucket
    Drawn     beside Draws: the drawn tokens; forward KL without the teacher's entropy, −1/N Σ_n log q(token n), unbiased

A view gives the log-probability of the target tokens, the divergence with its slope (token_divergence.py), and the gradient at
the logits, `gradient(share, slope)` = share · q + slope, where the slope of a bucket belongs to its tokens by their shares of it.

Shapes: logits (C, V) of C positions; own (C); share (C, 1).
"""

from typing import Protocol

import torch
from torch import Tensor

from mangakd.core.token_logits import Draws, TopK
from mangakd.losses.token_divergence import Divergence, floor

Seen = Tensor | TopK | Draws
"""Of a teacher: its logits (C, V) if it answers with states, else its answer."""


class View(Protocol):
    """own: log q of the target tokens (C); empty for a view without targets."""

    own: Tensor

    def compare(self, divergence: Divergence) -> tuple[Tensor, Tensor]:
        """Its value (C) and slope."""

    def gradient(self, share: Tensor | float, slope: Tensor | None) -> Tensor:
        """(C, V). Ends the view, whose memory becomes the gradient."""


class Whole:
    """All tokens. teacher: log p (C, V); None for a view that is not compared."""

    def __init__(self, logits: Tensor, targets: Tensor | None, teacher: Tensor | None = None) -> None:
        self._log_q, self._log_p = torch.log_softmax(logits, -1), teacher
        self.own = _picked(self._log_q, targets)

    def compare(self, divergence: Divergence) -> tuple[Tensor, Tensor]:
        assert self._log_p is not None
        return divergence(self._log_p, self._log_q)

    def gradient(self, share: Tensor | float, slope: Tensor | None) -> Tensor:
        whole = self._log_q.exp_().mul_(share)
        return whole if slope is None else whole.add_(slope)


class Buckets:
    """The teacher's K tokens, and all others as one bucket.

    The others' mass comes from the normaliser of their own softmax. 1 − Σ q of the K tokens would be 0 in fp32 where the student
    rules the others out.
    """

    def __init__(self, logits: Tensor, targets: Tensor | None, teacher: TopK) -> None:
        low = floor(logits.dtype)
        own, top = _picked(logits, targets), logits.gather(1, teacher.ids)
        rest = logits.scatter(1, teacher.ids, low)
        best = rest.argmax(-1, keepdim=True)
        height = rest.gather(1, best)
        self._rest = torch.softmax(rest, -1)
        others = height - self._rest.gather(1, best).log()  # log Σ exp over them
        buckets = torch.cat([top, others], 1)
        self._log_q = torch.log_softmax(buckets, -1).clamp_(min=low)
        log_p = torch.cat([teacher.log_probs, teacher.tail[:, None]], 1).to(logits.dtype)
        self._log_p, self._ids = log_p.clamp_(min=low), teacher.ids
        self.own = own if targets is None else own - buckets.logsumexp(-1)

    def compare(self, divergence: Divergence) -> tuple[Tensor, Tensor]:
        return divergence(self._log_p, self._log_q)

    def gradient(self, share: Tensor | float, slope: Tensor | None) -> Tensor:
        each = self._log_q.exp().mul_(share)
        each = each if slope is None else each.add_(slope)
        return self._rest.mul_(each[:, -1:]).scatter_(1, self._ids, each[:, :-1])


class Drawn(Whole):
    """The tokens drawn from the teacher, whatever the divergence: the loss refuses all but forward KL (tokens.py)."""

    def __init__(self, logits: Tensor, targets: Tensor | None, teacher: Draws) -> None:
        super().__init__(logits, targets)
        self._ids = teacher.ids

    def compare(self, divergence: Divergence) -> tuple[Tensor, Tensor]:
        drawn = self._log_q.gather(1, self._ids)
        return -drawn.mean(-1), torch.full_like(drawn, -1 / drawn.shape[1])

    def gradient(self, share: Tensor | float, slope: Tensor | None) -> Tensor:
        whole = super().gradient(share, None)
        return whole if slope is None else whole.scatter_add_(1, self._ids, slope)


def view(logits: Tensor, targets: Tensor | None, teacher: Seen, temperature: float) -> View:
    """The view beside this kind of answer. logits: of the student, divided by the temperature already."""
    if isinstance(teacher, TopK):
        return Buckets(logits, targets, teacher)
    if isinstance(teacher, Draws):
        return Drawn(logits, targets, teacher)
    return Whole(logits, targets, torch.log_softmax(teacher.to(logits.dtype) / temperature, -1))


def _picked(values: Tensor, targets: Tensor | None) -> Tensor:
    """values (C, V) at the targets (C); empty without targets."""
    return values.new_empty(0) if targets is None else values.gather(1, targets[:, None])[:, 0]
