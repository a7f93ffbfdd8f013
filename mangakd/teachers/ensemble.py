"""`EnsembleTeacher`: several teachers as one. Mean of probabilities at the loss's temperature, or of logits.

`combine=probabilities` keeps every member's logits, so that log Σ w_m softmax(z_m / T) is exact at each temperature a loss
asks for (a mean taken at T=1 and softened afterwards is another distribution). `combine=logits` is Σ w_m z_m.
Heads of scores have no probabilities: their answer is Σ w_m z_m under both. `combine=standardised` brings their members to one
scale first (standard.py). Vectors are put side by side (concatenated.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs, mixture
from mangakd.core.requires import Need
from mangakd.core.spec import Head, Kind, ModelSpec
from mangakd.data.encoded import EncodedSplit
from mangakd.data.gather import gather
from mangakd.data.loader import EvalBatches
from mangakd.teachers import standard
from mangakd.teachers.base import SeveralProviders, TeacherProvider
from mangakd.teachers.concatenated import ConcatenatedTeacher
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.several import CONCATENATED, EnsembleOptions, check_combinable
from mangakd.teachers.standard import Scale, check_scores


class EnsembleTeacher(SeveralProviders):
    """members: providers with one label order. weights: M numbers ≥ 0, normalised to 1; None means equal.

    Raises UserError on a wrong number of weights, or members that differ in head or tokenizer.
    """

    word: ClassVar[str] = "ensemble"

    def __init__(
        self, members: Sequence[TeacherProvider], weights: Sequence[float] | None = None, combine: str = "probabilities"
    ) -> None:
        super().__init__(members)
        check_combinable(self._providers[0].spec.head.kind, combine, several=True)
        _check_alike([provider.spec for provider in self._providers])
        self.members = len(self._providers)
        self.weights = normalised(weights, self.members)
        self.combine = combine
        self.scale: Scale | None = None
        self.spec = replace(self._providers[0].spec, name=f"ensemble of {self.members}")

    def __call__(self, batch: Batch) -> Outputs:
        stacked = torch.stack([provider(batch).answer for provider in self._providers])
        mask = batch["teacher"]["attention_mask"]
        return combined(stacked, self.weights, self.combine, mask, self.spec.head, self.scale)


def _check_alike(specs: Sequence[ModelSpec]) -> None:
    for what in ("head", "vocabulary"):
        values = {getattr(spec, what): spec.name for spec in specs}
        if len(values) > 1:
            raise UserError(
                f"the members of the ensemble differ in {what}: "
                f"{'; '.join(f'{name} has {value}' for value, name in values.items())}. "
                "Give teacher.paths models of one task that read with one tokenizer."
            )


def normalised(weights: Sequence[float] | str | None, members: int) -> Tensor:
    """M weights that sum to 1."""
    assert not isinstance(weights, str)
    values = [1.0] * members if weights is None else [float(w) for w in weights]
    if len(values) != members or min(values) < 0 or sum(values) <= 0:
        raise UserError(f"teacher.weights={values} must be {members} numbers ≥ 0 (one for each member), not all zero.")
    total = sum(values)
    return torch.tensor([value / total for value in values])


def combined(
    members: Tensor, weights: Tensor, combine: str, mask: Tensor, head: Head, scale: Scale | None = None
) -> Outputs:
    """Outputs of M members' logits (M, B, C) with weights (M). head: theirs. scale: of standardised scores."""
    weights = weights.to(members.device)
    members = members if scale is None else scale(members)
    if combine == "logits" or head.kind == "score":
        logits = torch.einsum("m,mbc->bc", weights, members.float())
    elif head.several:
        on, off = (torch.nn.functional.logsigmoid(sign * members.float()) for sign in (1, -1))
        logits = mixture(on, weights) - mixture(off, weights)
    else:
        logits = mixture(torch.log_softmax(members.float(), dim=-1), weights)
    if combine == "logits":
        return Outputs(logits, mask)
    return Outputs(logits, mask, members=members, weights=weights)


def learned_weights(members: Tensor, targets: Tensor, several: bool, steps: int = 1000) -> list[float]:
    """Weights that make the labels most likely under the mixture of probabilities, by expectation maximisation.

    members: (M, N, C) logits on rows the members were not trained on. targets: (N) or (N, C). Each step sets w_m to the
    mean share of member m in Σ_k w_k p_k(label); the likelihood is concave in w, so this finds its one maximum.
    In float64: steps get small long before the maximum.
    """
    members = members.double()
    if several:
        signs = targets.double() * 2 - 1
        log_p = torch.nn.functional.logsigmoid(members * signs).flatten(1)
    else:
        log_p = torch.log_softmax(members, -1)[:, torch.arange(len(targets)), targets]
    weights = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
    for _ in range(steps):
        before, weights = weights, torch.softmax(weights.log()[:, None] + log_p, dim=0).mean(1)
        if (weights - before).abs().max() < 1e-7:
            break
    return weights.tolist()


@dataclass(kw_only=True)
class Ensemble(EnsembleOptions):
    """teacher=ensemble."""

    def provider(self, context: TeacherContext) -> TeacherProvider:
        members = self.providers(context)
        if self.combine == CONCATENATED:
            return ConcatenatedTeacher(members, normalised(self.weights, len(members)))
        live = EnsembleTeacher(members, None, self.combine)
        live.weights, live.scale = of_validation(self, live, context)
        return live


def member_logits(outputs: Outputs) -> Tensor:
    """(B, M, C): one member for a plain teacher."""
    members = outputs.members if outputs.members is not None else outputs.answer[None]
    return members.transpose(0, 1)


def check_likelihood(kind: Kind) -> None:
    """Raises UserError for heads that give labels no likelihood, so that no weights can be learned from it."""
    if kind != "labels":
        raise UserError(
            "teacher.weights=validation looks for the weights under which the labels are most likely, and the task's head is of "
            f"kind {kind}. Give teacher.weights one number for each member, or null for equal ones."
        )


def of_validation(
    options: EnsembleOptions, teacher: TeacherProvider, context: TeacherContext
) -> tuple[Tensor, Scale | None]:
    """Weights and scale of a teacher's members; members are asked about validation where an option needs their answers.

    Raises UserError for a head that does not fit the options.
    """
    head = teacher.spec.head
    if options.combine == standard.COMBINE:
        check_scores(head.kind)
    if isinstance(options.weights, str):
        check_likelihood(head.kind)
        split = context.splits["validation"]
        targets = torch.from_numpy(split.columns["labels"])
        return torch.tensor(learned_weights(members_on(split, teacher, context), targets, head.several)), None
    weights = normalised(options.weights, teacher.members)
    if options.combine != standard.COMBINE:
        return weights, None
    return weights, scale_of(teacher, context).check()


def scale_of(teacher: TeacherProvider, context: TeacherContext) -> Scale:
    """Of each member's scores on validation."""
    return Scale.of(members_on(context.splits["validation"].sequences, teacher, context))


def members_on(
    split: EncodedSplit, teacher: TeacherProvider, context: TeacherContext, title: str = "weigh members"
) -> Tensor:
    """(M, N, C). title: of the progress bar."""
    teacher.prepare(context.device, Need(answer=True))
    with context.progress(title, len(split)) as advance:
        batches = EvalBatches(split, context.batch_size)
        logits = gather(
            lambda batch: member_logits(teacher(batch)), batches, context.device, advance, context.precision
        )
    return logits.transpose(0, 1)
