"""The temperature T of the soft targets: a number or a schedule, the same for all rows or fitted to the teacher's answers.

Formula:

    temperature_by=batch    T
    temperature_by=sample   T_i = 1 + (T − 1) · c_i        c_i: the teacher's largest probability for row i at T = 1
    temperature_by=class    T_i = 1 + (T − 1) · c̄_k        k: the teacher's class for row i; c̄_k: the mean c of validation
                                                           rows of class k (of all rows, where class k has none)
    entropy=e               T such that the mean entropy of softmax(z_teacher / T_i) on validation is e · log C

With `sample` and `class`, a row that the teacher is sure of is softened by nearly T, and a row that it is unsure of hardly at
all: the T that opens up a sure answer flattens an unsure one. `entropy` sets the softness and lets T follow from the teacher: T
= 4 is mild for a sure teacher of 10 classes, and leaves nothing of an unsure teacher of 150. A multi-label head has one
Bernoulli distribution for each label: c is max(p, 1 − p) of a cell, k is the label, and C is 2. Constants that come from
validation are computed once, before training, and kept in buffers, so that a resumed run reads the same numbers.

Shapes: validation logits (N, C); T a number, (B), or (B, C) for a multi-label head. N validation rows, B rows, C classes.

Source: these forms are ours; CTKD (Li et al. 2023, arXiv:2211.16231) learns T against the student instead.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from mangakd.core.errors import UserError, near
from mangakd.core.outputs import Outputs
from mangakd.core.schedule import Schedule, at
from mangakd.core.spec import Head
from mangakd.losses.base import ends

log = logging.getLogger(__name__)
BY = ("batch", "sample", "class")
COLDEST, HOTTEST = 1e-4, 1e4  # where T is looked for
HALVINGS = 50  # of the range of log T: more than fp32 can tell apart


class Temperature(nn.Module):
    """`forward(teacher, progress)` is T: a float, or a tensor: () for all rows, (B) for each row, and for multi-label heads
    (B, C) or (C) for each cell.

    base, by, entropy: see above. head: the teacher's, of labels. key: names an option for messages. Raises UserError for an
    option outside its range, at either end of a schedule.
    """

    confidence: Tensor
    found: Tensor

    def __init__(self, base: Schedule, by: str, entropy: float | None, head: Head, key: Callable[[str], str]) -> None:
        super().__init__()
        self.base, self.by, self.entropy, self.several, self.key = base, by, entropy, head.several, key
        self._check()
        # NaN until `calibrate`: a run that forgot it is stopped at its first step instead of learning something else.
        if by == "class":
            self.register_buffer("confidence", torch.full((head.outputs,), math.nan))
        if entropy is not None:
            self.register_buffer("found", torch.full((), math.nan))

    @property
    def constant(self) -> bool:
        return self.by == "batch" and self.entropy is None and not callable(self.base)

    @torch.no_grad()
    def forward(self, teacher: Outputs, progress: float) -> float | Tensor:
        return self._spread(at(self.base, progress) if self.entropy is None else self.found, teacher)

    @torch.no_grad()
    def calibrate(self, logits: Tensor) -> None:
        """Learn from the teacher's validation logits (N, C) what `class` and `entropy` need.

        Raises UserError when no T gives the entropy.
        """
        teacher = Outputs(logits, logits.new_empty(0))
        if self.by == "class":
            self.confidence.copy_(self._table(teacher))
        if self.entropy is not None:
            self.found.fill_(self._solved(self.entropy, teacher))
            log.info(
                "%s=%s: T = %.4g, found on %d validation rows; %s is not read.",
                self.key("entropy"), self.entropy, self.found, len(logits), self.key("temperature"),
            )  # fmt: skip

    def _spread(self, base: float | Tensor, teacher: Outputs) -> float | Tensor:
        """From one T to each row's."""
        if self.by == "batch":
            return base
        log_p = log_probabilities(teacher, self.several)
        sure = log_p.exp().amax(-1)
        if self.by == "class":
            sure = self.confidence if self.several else self.confidence[log_p.argmax(-1)]
        return 1 + (base - 1) * sure

    def _table(self, teacher: Outputs) -> Tensor:
        """c̄ (C)."""
        log_p = log_probabilities(teacher, self.several)
        sure = log_p.exp().amax(-1)
        if self.several:
            return sure.mean(0)
        given, classes = log_p.argmax(-1), log_p.shape[-1]
        rows = given.bincount(minlength=classes)
        return torch.where(rows > 0, given.bincount(sure, classes) / rows.clamp(min=1), sure.mean())

    def _solved(self, share: float, teacher: Outputs) -> float:
        """T by halving the range of its log: each row's entropy only grows with T."""

        def softness(t: float) -> float:
            log_p = log_probabilities(softened(teacher, self._spread(t, teacher), self.several), self.several)
            return torch.special.entr(log_p.exp()).sum(-1).mean().item() / math.log(max(log_p.shape[-1], 2))

        low, high = math.log(COLDEST), math.log(HOTTEST)
        least, most = softness(COLDEST), softness(HOTTEST)
        if not least < share < most:
            wider = "" if self.by == "batch" else f", or set {self.key('temperature_by')}=batch, which reaches more"
            raise UserError(
                f"{self.key('entropy')}={share} cannot be reached: the teacher's mean entropy on validation, as a share of "
                f"the largest possible, lies between {least:.3f} and {most:.3f} at every T. Choose a share between{wider}."
            )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if softness(math.exp(middle)) < share else (low, middle)
        return math.exp((low + high) / 2)

    def _check(self) -> None:
        first, last = found = ends(self.base, self.key("temperature"))
        if not all(0 < t < math.inf for t in found):
            shown = f"{self.base}" if not callable(self.base) else f"{first} at the start and {last} at the end"
            raise UserError(f"{self.key('temperature')} must be above 0; found {shown}. Set distill.temperature.")
        if self.by not in BY:
            hint = near(str(self.by), BY)
            raise UserError(f"{self.key('temperature_by')}={self.by!r} is unknown{hint} Known: {', '.join(BY)}.")
        if self.entropy is not None and not (isinstance(self.entropy, int | float) and 0 < self.entropy < 1):
            raise UserError(
                f"{self.key('entropy')} is a share of the largest possible entropy, between 0 and 1, or null; found "
                f"{self.entropy!r}."
            )


def log_probabilities(outputs: Outputs, several: bool) -> Tensor:
    """(B, C), or (B, C, 2) of (on, off) for a multi-label head, at T = 1."""
    return torch.stack(outputs.log_sigmoid(), dim=-1) if several else outputs.log_probs()


def softened(outputs: Outputs, t: float | Tensor, several: bool) -> Outputs:
    """The same answers with logits divided by T, every ensemble member's too: a mixture at T is no softened mixture."""
    if isinstance(t, Tensor) and not several:
        t = t.unsqueeze(-1)
    members = outputs.members.float() / t if outputs.members is not None else None
    return replace(outputs, logits=outputs.answer.float() / t, members=members)
