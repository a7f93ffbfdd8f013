"""`CalibratedTeacher`: another teacher whose probabilities are as often right as they are sure, and never saturated.

Formula, with a teacher's logits z of a row, C classes of which n are not ruled out by −inf, and p = softmax(z / T):

    calibrate=temperature    z ← z / T                       T fits the labels of validation best (core/temperature_fit.py)
    smooth=ε                 p ← (1 − λ) p + λ / n           λ = max(0, (max p − (1 − ε)) / (max p − 1 / n)), at most 1

Smoothing takes a largest probability above 1 − ε down to 1 − ε and spreads the difference evenly over all classes. Rows that are
less sure stay as they are. Both happen before a loss divides by its own temperature, calibration first. A multi-label head has a
distribution over (on, off) for each label: n = 2, and a logit is cut to ± log((1 − ε) / ε).
Of an ensemble with combine=probabilities each member is divided by the same T, which fits the mixture, and smoothed by itself, so
that the mixture at a loss's temperature stays exact. A store holds the numbers before both: one store serves every T and ε.

Shapes: logits (B, C), members (M, B, C).
Source: Guo et al. 2017 (arXiv:1706.04599) for T; label smoothing: Szegedy et al. 2015 (arXiv:1512.00567).
Deviation: only saturated rows are smoothed.
"""

import logging
import math
from dataclasses import replace

import torch
from torch import Tensor

from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs, mixture
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.core.temperature_fit import fit_temperature
from mangakd.models.encoder import Encoder
from mangakd.store.manifest import Manifest
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.teachers.cached import Cached, CachedTeacher
from mangakd.teachers.ensemble import members_on
from mangakd.teachers.options import TeacherContext, TeacherOptions

log = logging.getLogger(__name__)


class CalibratedTeacher(TeacherProvider):
    """teacher: a classifier. temperature, smooth: T and ε of the formula."""

    def __init__(self, teacher: TeacherProvider, temperature: float = 1.0, smooth: float = 0.0) -> None:
        self.teacher, self.temperature, self.smooth = teacher, temperature, smooth
        self.spec, self.members = teacher.spec, teacher.members

    @property
    def weights(self) -> Tensor | None:
        """Of an ensemble's members."""
        return getattr(self.teacher, "weights", None)

    @property
    def gives(self) -> Need:
        return self.teacher.gives

    @property
    def encoders(self) -> list[Encoder]:
        return self.teacher.encoders

    @property
    def fingerprint(self) -> str:
        return digest(self.teacher.fingerprint, self.temperature, self.smooth)

    def prepare(self, device: torch.device, need: Need) -> "CalibratedTeacher":
        self.teacher.prepare(device, need)
        return self

    def __call__(self, batch: Batch) -> Outputs:
        outputs = self.teacher(batch)
        several = self.spec.head.several
        if outputs.members is None:
            return replace(outputs, logits=self._changed(outputs.answer))
        assert outputs.weights is not None
        members, weights = self._changed(outputs.members), outputs.weights.to(outputs.members.device)
        if several:
            on, off = (mixture(torch.nn.functional.logsigmoid(sign * members), weights) for sign in (1, -1))
            return replace(outputs, logits=on - off, members=members)
        return replace(outputs, logits=mixture(torch.log_softmax(members, dim=-1), weights), members=members)

    def _changed(self, logits: Tensor) -> Tensor:
        """fp32."""
        return smoothed(logits.float() / self.temperature, self.smooth, self.spec.head.several)


def smoothed(logits: Tensor, share: float, several: bool) -> Tensor:
    """Logits (…, C) of the smoothed probabilities. share: ε. A row that is not saturated keeps its logits to the bit."""
    if share == 0:
        return logits
    if several:
        most = math.log((1 - share) / share)
        return logits.clamp(-most, most)
    allowed = logits != float("-inf")
    count = allowed.sum(-1, keepdim=True).float()
    total = torch.logsumexp(logits, -1, keepdim=True)
    log_p = logits - total
    largest = log_p.amax(-1, keepdim=True).exp()
    saturated = (largest > 1 - share) & (count > 1)
    part = ((largest - (1 - share)) / (largest - 1 / count)).clamp(0, 1)
    mixed = torch.logaddexp(log_p + torch.log1p(-part), (part / count).log())
    # The sum of the exponentials stays: divergence=mse compares logits of saturated and of other rows.
    return torch.where(saturated & allowed, mixed + total, logits)


def calibrated(options: TeacherOptions, context: TeacherContext) -> TeacherProvider:
    """The provider of `options`, with calibrate and smooth applied. All ranks call it together.

    Raises UserError as `check_smooth` does.
    """
    provider = options.provider(context)
    head = provider.spec.head
    check_smooth(options.smooth, head)
    if not _used(options, head):
        return provider
    temperature = 1.0
    if options.calibrate is not None:
        temperature = ranks.share(_fitted(provider, context) if ranks.is_first() else 1.0)
        if isinstance(provider, CachedTeacher) and isinstance(options, Cached):
            _note(provider, options, temperature)
    return CalibratedTeacher(provider, temperature, float(options.smooth))


def check_smooth(share: float, head: Head) -> None:
    """Raises UserError for a share that leaves no outcome ahead of the others."""
    outcomes = 2 if head.several else head.outputs
    if head.kind == "labels" and share >= 1 - 1 / outcomes:
        raise UserError(
            f"teacher.smooth={share} must be below 1 − 1 / {outcomes} = {1 - 1 / outcomes:.3g}, at which all {outcomes} outcomes "
            "are equally probable. Set it to a share such as 0.02."
        )


def _used(options: TeacherOptions, head: Head) -> bool:
    """Warns of options that are ignored."""
    if head.kind == "labels":
        return bool(options.calibrate or options.smooth)
    for name, value in (("calibrate", options.calibrate), ("smooth", options.smooth)):
        if value:
            log.warning(
                "teacher.%s=%s is ignored: it is for probabilities of labels, and the head is %s.", name, value, head
            )
    return False


def _fitted(provider: TeacherProvider, context: TeacherContext) -> float:
    """T, on the validation rows."""
    split, head = context.splits["validation"], provider.spec.head
    members = members_on(split, provider, context, "calibrate teacher").numpy()
    targets = split.columns["labels"]
    weights = getattr(provider, "weights", None)
    shares = weights.tolist() if len(members) > 1 and weights is not None else (1.0,)
    temperature = fit_temperature(members, targets, head.several, shares)
    log.info("teacher.calibrate=temperature: T = %.4g, fitted on %d validation rows.", temperature, len(targets))
    return temperature


def _note(provider: CachedTeacher, options: Cached, temperature: float) -> None:
    """Write T into the store's manifest, for people."""
    if not ranks.is_first() or options.allow_mismatch:
        return
    manifest = Manifest.load(provider.folder)
    if manifest.calibration != temperature:
        replace(manifest, calibration=temperature).save(provider.folder)
