"""A loss that learns nothing and writes down which rows each process was given at each step; for kills.py.

It is added to a run as any user's own loss is: `+losses.recorder._target_=kills_recorder.Recorder`, with this folder on
PYTHONPATH. A loss does not know the step, but its weight does: a weight is a function of progress, and LossSet asks for it
right after the loss. So the rows are kept until then, and written in one line, handed to the system before the step goes on.
"""

import os
from pathlib import Path
from typing import Any

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Requires
from mangakd.losses.base import LossCallback, LossOutput

FOLDER = "KILLS_RECORDS"  # the variable that names where the lines go


class Recorder(LossCallback):
    """Writes `<progress> <key of a row> …` a step to `<rank>-<pid>.txt`. A row whose scale is 0 only fills a place."""

    needs_teacher = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = self._write  # always 0
        self._keys: list[int] | None = None
        self._file: Any = None

    def bind(self, student: Any, teacher: Any) -> None:
        self.requires = Requires()

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self._keys = batch["key"].tolist() if batch["scale"]["rows"] else []
        nothing = student.logits.new_zeros(())
        return LossOutput(nothing, nothing + 1)

    def _write(self, progress: float) -> float:
        if self._keys is None:  # asked before training, to see whether it is a weight at all
            return 0.0
        if self._file is None:  # only now: the run may have been copied or handed to another process before
            name = f"{os.environ.get('RANK', '0')}-{os.getpid()}.txt"
            self._file = (Path(os.environ[FOLDER]) / name).open("w")
        print(repr(progress), *self._keys, file=self._file, flush=True)
        self._keys = None
        return 0.0
