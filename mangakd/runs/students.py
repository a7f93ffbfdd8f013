"""`Students`: builds the run's student, its baseline, and the other students of its stages."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models import lora
from mangakd.models.encoder import Encoder
from mangakd.models.location import locate
from mangakd.models.trial import check_numbers, two_texts
from mangakd.students.build import Student, Texts


@dataclass
class Students:
    """options: of the run's student. source: reads the teacher's member that a student takes layers from; None where the
    teacher has no model.

    texts: batches of training texts for a student that starts from the teacher. times: how often the run's student is needed;
    copies spare the further readings of weights. frozen: the dtype of the weights
    under adapters while they learn.
    """

    options: Student
    source: Callable[[], Encoder] | None
    tokenizer: Any
    head: Head
    attention: str
    packing: bool
    seed: int
    times: int
    texts: Texts
    frozen: torch.dtype = torch.float32
    _copies: list[Encoder] = field(default_factory=list, init=False)

    def build(self, options: dict[str, Any] | None = None) -> Encoder:
        """An untrained student, the same on every rank. options: entries of conf/student for another one, such as an
        assistant."""
        if options is not None:
            return self._adapted(Student(**options))
        if self._copies:
            return self._copies.pop()
        student = self._adapted(self.options)
        self._copies = [copy.deepcopy(student) for _ in range(self.times - 1)]
        return student

    def untrained(self) -> Encoder:
        """The run's student as its source has it: without adapters, and in full precision."""
        return self._build(self.options) if self.options.adapters else self.build()

    def finish(self, trained: Encoder, options: dict[str, Any] | None = None) -> Encoder:
        """The trained student without adapters: merged into its base, which is built anew from its source.

        options: as those that it was built with.
        """
        student = self.options if options is None else Student(**options)
        adapters = student.adapters
        if adapters is None:
            return trained
        return lora.merge(self._build(student), trained, adapters, two_texts(self.tokenizer))

    def save_adapter(self, trained: Encoder, folder: Path, options: dict[str, Any] | None = None) -> None:
        """The adapters of a student whose base has a path. options: as for `finish`."""
        path = (self.options if options is None else Student(**options)).path
        if trained.adapters is not None and path is not None:
            where = locate(path, "student.path")
            base = str(Path(where).resolve()) if Path(where).is_dir() else where
            lora.save_adapter(trained, self.tokenizer, base, folder)

    def _adapted(self, options: Student) -> Encoder:
        student, adapters = self._build(options), options.adapters
        if adapters is not None:
            lora.store_base(lora.adapt(student, adapters), self.frozen)
        return student

    def _build(self, options: Student) -> Encoder:
        if options.needs_teacher and self.source is None:
            key = "student.layers" if options.takes_layers else "student.start=teacher"
            raise UserError(f"{key} takes weights of the teacher, which has no model here: set student.path.")
        source = self.source() if options.needs_teacher and self.source else None
        torch.manual_seed(self.seed)  # the same random weights, whether or not the teacher was fine-tuned just now
        student = options.build(source, self.tokenizer, self.head, self.texts)
        if options.path is not None:
            check_numbers(student, self.tokenizer, f"student.path={options.path}").train()
        return student.attend_with(self.attention).pack(self.packing)
