"""`Students`: builds the run's student, its baseline, and the other students of its stages."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models.encoder import Encoder
from mangakd.models.trial import check_numbers
from mangakd.students.build import Student


@dataclass
class Students:
    """options: of the run's student. source: reads the teacher's member that a student takes layers from; None where the
    teacher has no model.

    times: how often the run's student is needed; copies spare the further readings of weights.
    """

    options: Student
    source: Callable[[], Encoder] | None
    tokenizer: Any
    head: Head
    attention: str
    packing: bool
    seed: int
    times: int
    _copies: list[Encoder] = field(default_factory=list, init=False)

    def build(self, options: dict[str, Any] | None = None) -> Encoder:
        """An untrained student, the same on every rank. options: entries of conf/student for another one, such as an
        assistant."""
        if options is not None:
            return self._build(Student(**options))
        if self._copies:
            return self._copies.pop()
        student = self._build(self.options)
        self._copies = [copy.deepcopy(student) for _ in range(self.times - 1)]
        return student

    def _build(self, options: Student) -> Encoder:
        if options.takes_layers and self.source is None:
            raise UserError("student.layers takes layers of the teacher, which has no model here: set student.path.")
        source = self.source() if options.takes_layers and self.source else None
        torch.manual_seed(self.seed)  # the same random weights, whether or not the teacher was fine-tuned just now
        student = options.build(source, self.tokenizer, self.head)
        if options.path is not None:
            check_numbers(student, self.tokenizer, f"student.path={options.path}").train()
        return student.attend_with(self.attention).pack(self.packing)
