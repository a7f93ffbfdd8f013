"""`Optim`: AdamW's settings, the learning rate's schedule, and the parameters with weight decay."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from mangakd.core.errors import UserError
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.training.quantise import HOOKS

SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class Optim:
    """lr: peak. warmup: share of steps; then linear or cosine to 0, or constant. clip: largest gradient norm, or None.

    gradient_norms: interval in steps at which to log each loss term's gradient norm, at the cost of one backward pass a term;
    None never.
    """

    lr: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    clip: float | None = 1.0
    gradient_norms: int | None = None

    def factor(self, step: int, steps: int) -> float:
        """Multiplier of lr at `step` of `steps`."""
        if self.schedule not in SCHEDULES:
            raise UserError(f"Optim(schedule={self.schedule!r}) is unknown. Known: {', '.join(SCHEDULES)}.")
        ramp = max(round(self.warmup * steps), 1)
        if step < ramp:
            return (step + 1) / ramp
        share = (step - ramp) / max(steps - ramp, 1)
        return {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2, "constant": 1.0}[self.schedule]


def parameter_groups(student: Encoder, losses: LossSet, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Optimizer groups `student` and `losses.<name>`, each with a group `.no_decay` for biases and norms."""
    owners: dict[str, nn.Module] = {"student": student}
    owners |= {f"losses.{name}": loss for name, loss in losses.losses.items()}
    groups = []
    for name, module in owners.items():
        parameters = [(key, p) for key, p in module.named_parameters() if p.requires_grad]
        # A quantiser's ranges per channel have as many dimensions as the weight, but must not decay.
        decays = [p.dim() > 1 and HOOKS not in key for key, p in parameters]
        for suffix, decay, group in (
            ("", weight_decay, [p for (_, p), yes in zip(parameters, decays, strict=True) if yes]),
            (".no_decay", 0.0, [p for (_, p), yes in zip(parameters, decays, strict=True) if not yes]),
        ):
            if group:
                groups.append({"params": group, "weight_decay": decay, "name": name + suffix})
    return groups
