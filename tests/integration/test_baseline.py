"""The student without a teacher: it learns the labels by the task's own loss, in as many steps as the distilled student."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tiny import encoder, plan, split

from mangakd.data.encoded import EncodedSplit
from mangakd.runs.recipe import without_teacher
from mangakd.tasks.classification.encode import labelled
from mangakd.tasks.classification.task import Classification
from mangakd.training.fit import Fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim
from mangakd.training.stages import Stage


def by_first_token(rows: int) -> EncodedSplit:
    sides = split(rows, 1).sides
    return labelled(sides, np.array([sides.student[i][0] % 3 for i in range(rows)], dtype=np.int64))


def test_it_learns_the_labels_in_the_given_number_of_steps(tmp_path: Path) -> None:
    rows = by_first_token(96)

    def options(title: str, folder: Path, train: EncodedSplit, stage: Stage, teacher: Any) -> Fit:
        assert teacher is None
        fit = plan(folder, epochs=stage.epochs, optim=Optim(lr=5e-3))
        fit.train = fit.validation = train
        return fit

    fits = SimpleNamespace(task=Classification(), hardware=Hardware(accelerator="cpu", batch_size=8), fit=options)
    result = without_teacher(fits, encoder(0, dropout=0.0), rows, tmp_path, steps=240)  # type: ignore[arg-type]
    assert result.steps == 240 and result.score > 0.9
