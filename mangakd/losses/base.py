"""`LossCallback`: one pluggable term of the distillation loss.

The DistillModule calls it back with both models' outputs. It is an nn.Module so that its projections are trained, saved
and sharded, and it is not a lightning.Callback: those return nothing, collide by class, and miss strict loading.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mangakd.core.errors import UserError, near
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Fits, Requires
from mangakd.core.schedule import Schedule, at
from mangakd.core.spec import Kind, ModelSpec
from mangakd.core.token_logits import TokenAnswer

ALWAYS = ("rows", "sequences", "tokens", "cells")
UNITS = (*ALWAYS, "labels", "groups", "ordered", "targets")
"""What a loss may count: data/sampler.py counts each of them in every optimizer step. A task says which others than ALWAYS its
rows have: labels, or rows with them; groups, rows of two documents or more; ordered, rows with two different grades;
targets, the tokens that a language model learns."""


@dataclass(frozen=True)
class LossOutput:
    """sum: a scalar with a graph. count: how many things were summed (a scalar tensor, no graph). The mean is sum /
    count.

    Sum and count rather than a mean: LossSet normalises over micro-batches and ranks in one place.
    """

    sum: Tensor
    count: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


class LossCallback(nn.Module):
    """Base of all losses.

    A subclass takes keyword hyper-parameters only, sets `requires` in `bind` (called once, before optimizer, strategy
    and checkpoint loading; projections are built there, from sizes), and computes a sum and a count in `forward`: pure,
    fp32 inside, masked, with a zero that keeps the graph when nothing is valid.

    Options are stored under their own names and checked in `bind`, not in `__init__`: only then is `name` known,
    LossSet can report all problems at once, and Hydra does not wrap the error into its own.

    name: its key among the losses, for messages (`losses.<name>.<option>`). weight: a number or a schedule of progress.
    citation: the source, for the model card. needs_teacher: False when it learns from the labels alone. unit: what `count`
    is a fixed multiple of, one of UNITS. The loader knows how many of it an optimizer step holds on all ranks, which is what
    LossSet divides by. additive: False if the loss compares rows of a batch
    with each other (in-batch contrast): the sums of a step's parts then do not add up to the loss of the whole step.
    gathers: of such a loss, the entries of the batch that it reads beside `first`. It then reads answers and these alone, and
    on several devices it gets those of all ranks (across_ranks.py). None: it is refused on several devices.
    calibrated_on: validation or train, the split whose teacher answers `calibrate` gets.
    """

    citation: ClassVar[str] = ""
    needs_teacher: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    gathers: ClassVar[tuple[str, ...] | None] = None
    calibrated_on: str = "validation"
    unit: str = "rows"

    def __init__(self, *, weight: Schedule = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.name = type(self).__name__
        self.requires = Requires()

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        """Resolve layer maps, build projections, set `requires`. Raises UserError when the two models do not fit."""
        raise NotImplementedError

    def calibrate(self, teacher: Tensor) -> None:
        """Learn constants from the teacher's answers: called once, after `bind` and before training.

        teacher: logits (N, C) of validation rows, or vectors (N, D) of training texts (`calibrated_on`).

        What is kept belongs into buffers made in `bind`, so that a resumed run reads it from its checkpoint.
        """

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Pure: `batch["progress"]` (0…1, from LossSet) is where training is, for options that are schedules."""
        raise NotImplementedError

    def key(self, option: str) -> str:
        """The config key of one of this loss's options, for messages."""
        return f"losses.{self.name}.{option}"

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's options as plain data (for the model card); `type(loss)(**loss.config)` builds it again."""
        options = inspect.signature(type(self).__init__).parameters
        # vars, not getattr: nn.Module would turn a missing attribute into "no attribute 'config'".
        return {name: _plain(vars(self)[name]) for name in options if name != "self"}

    @property
    def reads_queries(self) -> bool:
        """Whether it needs the queries, keys or values of attention taps, which some architectures do not give."""
        return False

    def teacher_spec(self, teacher: ModelSpec | None) -> ModelSpec:
        """`teacher`, or a UserError when there is none."""
        if teacher is None:
            raise UserError(
                f"losses.{self.name} ({type(self).__name__}) learns from a teacher and there is none: give a "
                f"teacher, or leave losses.{self.name} out."
            )
        return teacher

    @property
    def fits(self) -> Fits:
        """The heads that it can learn from; asked before `bind`."""
        return Fits()

    def check_head(self, spec: ModelSpec) -> None:
        """Raises UserError for a model whose head this loss cannot learn from."""
        if misfit := self.fits.misfit(spec.head):
            raise UserError(
                f"losses.{self.name} ({type(self).__name__}) {misfit} ({spec.name}). {self.instead(spec.head.kind)}"
            )

    def check_answer(self, answer: TokenAnswer) -> None:
        """Raises UserError where this loss cannot learn from a teacher that answers so for tokens; asked before training."""

    def instead(self, kind: Kind) -> str:
        """What to choose for a head of this kind, which the loss does not fit."""
        return f"Leave losses.{self.name} out."

    def check_choice(self, option: str, known: Iterable[object]) -> None:
        """Raises UserError when the option's value is not among `known`."""
        value, choices = vars(self)[option], list(known)
        if value not in choices:
            hint = near(str(value), choices)
            raise UserError(f"{self.key(option)}={value!r} is unknown{hint} Known: {', '.join(map(str, choices))}.")


def ends(schedule: Schedule, key: str) -> tuple[float, float]:
    """Its values at the start and at the end of training. Raises UserError when it is neither a number nor a schedule."""
    try:
        return at(schedule, 0.0), at(schedule, 1.0)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{key}={schedule!r} is neither a number nor a schedule, which is written as "
            f"'{key}={{_target_: mangakd.core.schedule.Linear, start: 4, end: 1}}'."
        ) from error


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):  # a schedule, written as Hydra would build it
        return {"_target_": f"{type(value).__module__}.{type(value).__qualname__}", **asdict(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else repr(value)
