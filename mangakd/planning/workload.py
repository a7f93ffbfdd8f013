"""`Workload`: a run by sizes alone, as conf/workload holds it. So a plan needs neither hub nor data.

What depends on the machine (batch, precision, strategy) is not in it: a hardware profile says that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Kind
from mangakd.planning.job import Job, Placement
from mangakd.planning.sizes import Model


@dataclass(frozen=True)
class Sizes:
    """name: for the plan. sizes: entries of a Hugging Face config with its model_type."""

    name: str
    sizes: Mapping[str, Any]


@dataclass(frozen=True)
class Teacher:
    """As Sizes; null sizes where it is no model here. placement, dtype: as in planning.job.Job; auto is float32."""

    name: str
    sizes: Mapping[str, Any] | None = None
    placement: Placement = "replicated"
    dtype: str = "float32"


@dataclass(frozen=True)
class Workload:
    """kind: of the head of both models. sequences: that a row owns, such as a query's documents; examples, eval_examples and
    the profile's batch are rows. The other numbers are those of planning.job.Job."""

    kind: Kind
    student: Sizes
    teacher: Teacher
    examples: int
    epochs: int
    length: int
    eval_examples: int = 0
    soft_targets: bool = True
    lora: int | None = None
    sequences: int = 1
    target: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("student", Sizes), ("teacher", Teacher)):  # Hydra hands over plain mappings
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, kind(**getattr(self, name)))

    def models(self) -> tuple[Model, Model | None]:
        """Student and teacher."""
        student = Model.from_sizes(self.student.sizes, self.student.name, self.kind, "workload.student.sizes")
        if self.teacher.sizes is None:
            return student, None
        return student, Model.from_sizes(self.teacher.sizes, self.teacher.name, self.kind, "workload.teacher.sizes")

    def job(self, name: str, batch: int, budget: int = 0, **spread: Any) -> Job:
        """name: of the workload. batch: rows. budget: tokens of a batch in its place. spread: accumulation and precision.

        Raises UserError for numbers that are not whole or below 1.
        """
        if not isinstance(self.sequences, int) or self.sequences < 1:
            raise UserError(f"workload.sequences={self.sequences} must be a whole number from 1 on.")
        each = f", {self.sequences} sequences a row" if self.sequences > 1 else ""
        return Job(
            f"{name}{each}",
            self.examples * self.sequences,
            self.epochs,
            batch=max(budget // self.length, 1) if budget else batch * self.sequences,
            budget=budget,
            length=self.length,
            target=self.target,
            teacher=self.teacher.placement,
            teacher_dtype="float32" if self.teacher.dtype == "auto" else self.teacher.dtype,
            soft_targets=self.soft_targets,
            lora=self.lora,
            eval_examples=self.eval_examples * self.sequences,
            **spread,
        )
