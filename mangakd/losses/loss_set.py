"""`LossSet`: all terms of a run, the union of what they need, and the one place where sums become means and are weighted.

    total = Σ_name weight_name(progress) · scale_unit · sum_name / max(count_name, 1)

Losses return sums and counts, so that LossSet can divide by the count of the whole optimizer step: under DDP or gradient
accumulation, a mean of means weights short micro-batches too much (measured elsewhere: a 4-fold error). `batch["scale"]` holds,
for each unit that losses count in, this micro-batch's share of its step (data/sampler). Without `batch["scale"]` the batch is
the whole step. The mean of the totals over micro-batches and ranks is the step's loss, and the mean of the terms its terms.
A loss that compares rows is computed on the micro-batches of all ranks together (across_ranks.py), with the mean of their shares.
Losses sit in an nn.ModuleDict under their yaml keys, so projections are `losses.<name>.…` in checkpoints and optimizer groups.
All of it runs in fp32, also under autocast, which would compute projections and score products in bf16.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need, Requires
from mangakd.core.schedule import at
from mangakd.core.spec import ModelSpec
from mangakd.losses import across_ranks
from mangakd.losses.base import UNITS, LossCallback, ends


@dataclass(frozen=True)
class LossSetOutput:
    """total: the weighted sum, a scalar with a graph. weighted: name → its part, with the graph. terms: name → unweighted
    term, detached. weights: name → weight at this progress. logs: `<name>/<what>` → whatever a loss reports besides."""

    total: Tensor
    weighted: Mapping[str, Tensor]
    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]
    logs: Mapping[str, Tensor]


class LossSet(nn.Module):
    """The losses of one stage under their yaml keys (an entry of None is left out: `losses.hidden=null`).

    Raises UserError when there is no loss, an entry is no LossCallback or its name cannot be a module's.
    """

    def __init__(self, losses: Mapping[str, LossCallback | None]) -> None:
        super().__init__()
        present = {str(name): loss for name, loss in losses.items() if loss is not None}
        if not present:
            raise UserError("there are no losses to train with; add one, for example losses=[hard_label,output].")
        for name, loss in present.items():
            _check_entry(name, loss)
            loss.name = name
        self.losses = nn.ModuleDict(present)

    @property
    def callbacks(self) -> dict[str, LossCallback]:
        """name → loss, in the order of the config."""
        return {name: cast(LossCallback, loss) for name, loss in self.losses.items()}

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss learns from a teacher; known before `bind`."""
        return any(loss.needs_teacher for loss in self.callbacks.values())

    @property
    def requires(self) -> Requires:
        """The union of what the bound losses need."""
        union = Requires()
        for loss in self.callbacks.values():
            union = union | loss.requires
        return union

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        """Binds every loss that fits the heads. Raises one UserError that lists all problems."""
        problems = []
        for loss in self.callbacks.values():
            try:
                _check_weight(loss)
                loss.check_head(student)
                if teacher is not None and loss.needs_teacher:
                    loss.check_head(teacher)
                loss.bind(student, teacher)
                _check_unit(loss)  # some choose it in bind
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError(problems[0] if len(problems) == 1 else "\n".join(f"- {problem}" for problem in problems))

    @property
    def comparing(self) -> list[str]:
        """Names of the losses that compare the rows of a micro-batch with each other."""
        return [name for name, loss in self.callbacks.items() if not loss.additive]

    @property
    def of_one_device(self) -> list[str]:
        """Names of the losses that compare rows and cannot gather those of other devices. The losses are bound."""
        return [name for name in self.comparing if not _gathers(self.callbacks[name])]

    def check_ranks(self, world: int, cure: str) -> None:
        """Raises UserError if a loss compares rows, and would see only those of one of several devices.

        cure: the end of the message.
        """
        if world > 1 and (names := self.of_one_device):
            raise UserError(
                f"losses {', '.join(names)} compare the rows of a batch with each other, but each of {world} devices would "
                f"compare its own rows alone: a loss can gather answers only, and must declare it (LossCallback.gathers). {cure}"
            )

    def calibrates_on(self, split: str) -> bool:
        """Whether a loss learns constants from the teacher's answers on this split."""
        return any(loss.calibrated_on == split for loss in self.callbacks.values())

    def calibrate(self, teacher: Tensor, split: str = "validation") -> None:
        """Before training: what losses learn from the teacher's answers (N, …) on validation or train."""
        for loss in self.callbacks.values():
            if loss.calibrated_on == split:
                loss.calibrate(teacher)

    def forward(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, progress: float, across: bool = False
    ) -> LossSetOutput:
        """The weighted total at `progress` (0…1). A weight of 0 multiplies and keeps the graph: skipping a loss would
        leave its parameters without gradients, which DDP refuses.

        across: whether losses that compare rows compare those of all ranks, each of which then calls this for the same step."""
        total = student.mask.new_zeros((), dtype=torch.float32)
        own = (student, teacher, {**batch, "progress": progress})
        whole = across_ranks.gather(*own, self._entries()) if across and self.comparing else own
        weighted: dict[str, Tensor] = {}
        terms: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        logs: dict[str, Tensor] = {}
        with torch.autocast(device_type=student.mask.device.type, enabled=False):
            for name, loss in self.callbacks.items():
                inputs = own if loss.additive else whole
                output, scale = loss(*inputs), inputs[2].get("scale")
                mean = output.sum / output.count.clamp(min=1) * (1.0 if scale is None else scale[loss.unit])
                weights[name] = at(loss.weight, progress)
                weighted[name] = weights[name] * mean
                total = total + weighted[name]
                terms[name] = mean.detach()
                logs.update({f"{name}/{key}": value for key, value in output.logs.items()})
        return LossSetOutput(total, weighted, terms, weights, logs)

    def _entries(self) -> list[str]:
        """What to gather of a batch, on all ranks in the same order."""
        return sorted({entry for name in self.comparing for entry in self.callbacks[name].gathers or ()})


def _check_entry(name: str, loss: object) -> None:
    if not isinstance(loss, LossCallback):
        raise UserError(
            f"losses.{name} is a {type(loss).__name__}, not a loss; give it a _target_ that is a mangakd LossCallback."
        )
    if not name or "." in name or hasattr(nn.ModuleDict, name):
        raise UserError(
            f"losses.{name}: {name!r} cannot name a loss (a dot, empty, or taken by torch); choose another."
        )


def _gathers(loss: LossCallback) -> bool:
    answers = Need(answer=True)
    needs = (loss.requires.student, loss.requires.teacher)
    return loss.gathers is not None and not any(need.missing(answers) for need in needs)


def _check_unit(loss: LossCallback) -> None:
    if loss.unit not in UNITS:
        raise UserError(
            f"losses.{loss.name} ({type(loss).__name__}) counts in {loss.unit!r}, of which the loader knows no total for a step. "
            f"Set its `unit` to one of {', '.join(UNITS)}."
        )


def _check_weight(loss: LossCallback) -> None:
    start, end = ends(loss.weight, loss.key("weight"))
    if not all(math.isfinite(weight) and weight >= 0 for weight in (start, end)):
        raise UserError(
            f"{loss.key('weight')} must be finite and at least 0; found {start} at the start and {end} at the "
            "end. distill.alpha must lie in [0, 1]."
        )
