"""`Fits`: what the fits of a run share, and what makes a single fit of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mangakd.core import ranks
from mangakd.data.encoded import EncodedSplit
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.training.callbacks.save_last import SaveEvery
from mangakd.training.checkpoints import Identity, newest
from mangakd.training.fit import Fit
from mangakd.training.hardware import Hardware
from mangakd.training.on_policy import OwnTexts
from mangakd.training.optim import Optim
from mangakd.training.stages import Stage
from mangakd.training.validation_texts import ValidationTexts


def identity_of(run: Identity, teacher: TeacherProvider | None, stage: str, rows: EncodedSplit) -> Identity:
    """What one fit learns from, for its checkpoints. teacher: None for the baseline."""
    return replace(
        run,
        teacher=digest(teacher.fingerprint, getattr(teacher, "weights", None)) if teacher else None,
        data=digest(run.data, rows.student.keys.sum()),
        stage=stage,
    )


@dataclass(frozen=True)
class Fits:
    """reference: the teacher's answers on validation. trainer: further arguments of lightning.Trainer.

    resume: False, `auto`, or the path of a checkpoint. identity: what every fit of the run learns from. own_texts: of fits with
    a teacher. texts: that the student writes on validation.
    """

    task: Task
    validation: EncodedSplit
    reference: Mapping[str, Tensor]
    optim: Optim
    hardware: Hardware
    seed: int
    trainer: dict[str, Any]
    save_every: SaveEvery
    resume: bool | str
    identity: Identity
    own_texts: OwnTexts | None = None
    texts: ValidationTexts | None = None

    def fit(self, title: str, folder: Path, rows: EncodedSplit, stage: Stage, teacher: TeacherProvider | None) -> Fit:
        """`resume=auto` continues from the folder's newest whole checkpoint, if there is one."""
        fit = Fit(
            title, folder, self.task, rows, self.validation, replace(self.optim, lr=stage.lr or self.optim.lr),
            self.hardware, self.seed, {**self.trainer, "max_epochs": stage.epochs or self.trainer["max_epochs"]},
            self.reference, save_every=self.save_every, identity=identity_of(self.identity, teacher, stage.name, rows),
            keep=stage.keep, patience=stage.patience, own_texts=None if teacher is None else self.own_texts,
            texts=self.texts,
        )  # fmt: skip
        if self.resume == "auto":
            fit.resume = ranks.share(newest(fit.checkpoints) if ranks.is_first() else None)
        elif self.resume is not False and teacher is not None:
            fit.resume = Path(str(self.resume))
        return fit
