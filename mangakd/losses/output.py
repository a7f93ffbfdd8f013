"""Soft targets: a divergence between the class probabilities of teacher and student at a temperature T.

Formula, with p = softmax(z_teacher / T) and q = softmax(z_student / T), summed over rows; count = B:

    forward_kl   T² · KL(p‖q)                                                 the default
    reverse_kl   T² · KL(q‖p)                                                 mode-seeking
    jsd          T² · [β KL(p‖m) + (1 − β) KL(q‖m)],  m = β p + (1 − β) q     β = jsd_beta
    dkd          T² · [α KL(b_p‖b_q) + β KL(p̂‖q̂)]                             b = (target, rest); p̂, q̂ over the other classes
    mse          mean_c (z_student − z_teacher)²                              no temperature, no T²; a head of scores, too

T² keeps the size of the gradient independent of T. T may change with progress, differ from row to row, or follow the teacher's
entropy (`temperature.py`); each row has its own T² then.
For an ensemble, p is the mean of the members' probabilities at T; the softmax of mean logits is another distribution.
A multi-label head has one Bernoulli distribution for each label: the divergence is over (on, off), and count = B · C.
A teacher may rule out classes with logits of −inf. forward_kl, jsd and dkd stay finite there; reverse_kl and mse are infinite by
their formulas.

Shapes: logits (B, C) of both models; labels (B) int64 for dkd; T a number, (B), or (B, C) for a multi-label head. B rows,
C classes.

Source: Hinton et al. 2015 (arXiv:1503.02531); jsd: Agarwal et al. 2024 (arXiv:2306.13649); mse: Kim et al. 2021
(arXiv:2105.08919); dkd: Zhao et al. 2022 (arXiv:2203.08679).

Deviations: jsd compares class probabilities, not tokens, and carries T². The default of dkd_beta comes from image
classification. The non-target part of dkd is 0 where the teacher rules out every class but the target.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import CLASSES, Fits, Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import Kind, ModelSpec
from mangakd.losses.base import LossCallback, LossOutput
from mangakd.losses.divergence import dkd, jsd, kl, squared
from mangakd.losses.hard_label import IGNORE
from mangakd.losses.temperature import Temperature, log_probabilities, softened

log = logging.getLogger(__name__)
TEMPERATURE = 4.0


class OutputLoss(LossCallback):
    """T² · divergence(teacher‖student) over the classes, in nats (mse: squared logits).

    temperature: T > 0, a number or a schedule of progress. temperature_by: batch | sample | class. entropy: null, or a share
    of log C in (0, 1): T is chosen so that the teacher's mean entropy has this share, and `temperature` is not read. A T that
    is not constant is logged as its mean.
    divergence: forward_kl | reverse_kl | jsd | mse | dkd. jsd_beta: in (0, 1), the teacher's share of the mixture.
    dkd_alpha, dkd_beta: weights ≥ 0 of the target and the non-target part (1 and 8 on CIFAR-100 in the paper). dkd needs
    hard labels and skips rows without one.

    Raises UserError in `bind`: an option outside its range, no teacher, heads that differ, dkd with several
    labels a row.
    """

    citation: ClassVar[str] = (
        "Hinton et al. 2015, arXiv:1503.02531; jsd: Agarwal et al. 2024, arXiv:2306.13649; "
        "mse: Kim et al. 2021, arXiv:2105.08919; dkd: Zhao et al. 2022, arXiv:2203.08679"
    )

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        temperature: Schedule = TEMPERATURE,
        temperature_by: str = "batch",
        entropy: float | None = None,
        divergence: str = "forward_kl",
        jsd_beta: float = 0.5,
        dkd_alpha: float = 1.0,
        dkd_beta: float = 8.0,
    ) -> None:
        super().__init__(weight=weight)
        self.temperature = temperature
        self.temperature_by = temperature_by
        self.entropy = entropy
        self.divergence = divergence
        self.jsd_beta = jsd_beta
        self.dkd_alpha = dkd_alpha
        self.dkd_beta = dkd_beta
        self.several = False

    @property
    def fits(self) -> Fits:
        return Fits(("labels", "score")) if self.divergence == "mse" else CLASSES

    def instead(self, kind: Kind) -> str:
        cure = f"Set {self.key('divergence')}=mse, which compares scores, or leave" if kind == "score" else "Leave"
        return f"{cure} losses.{self.name} out."

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        teacher = self.teacher_spec(teacher)
        self._check_options()
        self._check_heads(student, teacher)
        self.softness = Temperature(self.temperature, self.temperature_by, self.entropy, teacher.head, self.key)
        self.several = student.head.several
        self.unit = "labels" if self.divergence == "dkd" else "rows"
        logits = Need(answer=True)
        self.requires = Requires(student=logits, teacher=logits, labels=self.divergence == "dkd")
        if self.divergence == "mse":
            if self.temperature != TEMPERATURE:  # somebody has set it
                log.info(
                    "%s=%s plays no part: divergence=mse compares logits.", self.key("temperature"), self.temperature
                )
            if self.temperature_by != "batch" or self.entropy is not None:
                log.warning(
                    "%s and entropy are ignored: divergence=mse has no temperature.", self.key("temperature_by")
                )

    def calibrate(self, teacher: Tensor) -> None:
        if self.divergence != "mse":
            self.softness.calibrate(teacher)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Logits (B, C) of both sides → the sum over B (multi-label: over B · C) of the divergence, times T²."""
        assert teacher is not None
        if self.divergence == "mse":
            return self._mse(student, teacher)
        t = self.softness(teacher, batch.get("progress", 0.0))
        if self.divergence == "dkd":
            return self._dkd(student, teacher, batch["labels"], t)
        each = self._divergence()(*self._log_probabilities(student, teacher, t))
        return LossOutput((t**2 * each).sum(), _count(each), self._logs(t, each))

    def _log_probabilities(self, student: Outputs, teacher: Outputs, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """log p and log q, of the teacher and the student at T."""
        log_p, log_q = (log_probabilities(softened(side, t, self.several), self.several) for side in (teacher, student))
        return log_p.detach(), log_q

    def _dkd(self, student: Outputs, teacher: Outputs, labels: Tensor, t: float | Tensor) -> LossOutput:
        # On the labels' own device and without a sync: rows without a label get class 0 and are masked. Before the arithmetic,
        # too: what a model rules out there must not put 0 · inf into the gradient.
        valid = labels != IGNORE
        student = replace(student, logits=student.answer.masked_fill(~valid[:, None], 0.0))
        log_p, log_q = self._log_probabilities(student, teacher, t)
        log_p = log_p.masked_fill(~valid[:, None], 0.0)
        each = dkd(log_p, log_q, labels.masked_fill(~valid, 0), self.dkd_alpha, self.dkd_beta).masked_fill(~valid, 0.0)
        return LossOutput((t**2 * each).sum(), valid.sum(), self._logs(t, each))

    def _logs(self, t: float | Tensor, each: Tensor) -> dict[str, Tensor]:
        if self.softness.constant:
            return {}
        return {"temperature": t.mean() if isinstance(t, Tensor) else each.new_full((), t)}

    def _divergence(self) -> Callable[[Tensor, Tensor], Tensor]:
        if self.divergence == "jsd":
            return lambda log_p, log_q: jsd(log_p, log_q, self.jsd_beta)
        return kl if self.divergence == "forward_kl" else lambda log_p, log_q: kl(log_q, log_p)

    def _mse(self, student: Outputs, teacher: Outputs) -> LossOutput:
        each = squared(student.answer.float(), teacher.answer.float().detach())
        each = each if self.several else each.mean(-1)
        return LossOutput(each.sum(), _count(each))

    def _check_options(self) -> None:
        self.check_choice("divergence", ("forward_kl", "reverse_kl", "jsd", "mse", "dkd"))
        if not 0 < self.jsd_beta < 1:
            raise UserError(
                f"{self.key('jsd_beta')} must be in (0, 1); found {self.jsd_beta}. For the ends use "
                f"{self.key('divergence')}=forward_kl or reverse_kl: JSD is 0 there."
            )
        if min(self.dkd_alpha, self.dkd_beta) < 0:
            raise UserError(
                f"{self.key('dkd_alpha')} and dkd_beta must be at least 0; found {self.dkd_alpha} and {self.dkd_beta}."
            )

    def _check_heads(self, student: ModelSpec, teacher: ModelSpec) -> None:
        own, other = student.head, teacher.head
        if (own.kind, own.outputs, own.several) != (other.kind, other.outputs, other.several):
            raise UserError(
                f"losses.{self.name} compares output by output, but {student.name} has {own} and {teacher.name} has {other}. "
                "Choose a teacher trained on this task's labels (teacher=<name>), or check the label column of the data."
            )
        if self.divergence == "dkd" and own.several:
            raise UserError(
                f"{self.key('divergence')}=dkd splits the classes into the target and the rest, which needs one label "
                f"per example; {student.name} has {own}. Use forward_kl."
            )


def _count(each: Tensor) -> Tensor:
    # new_full fills on the device; torch.tensor(n, device=…) would copy from the host each step.
    return each.new_full((), each.numel(), dtype=torch.int64)
