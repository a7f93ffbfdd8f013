"""The stages of a recipe, one fit after the other, and the baseline that gets as many steps without a teacher."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mangakd.cli.scores import Answers
from mangakd.cli.setup import Setup
from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import stored
from mangakd.teachers.local import LocalTeacher
from mangakd.training.checkpoints import Identity, newest
from mangakd.training.fit import Fit, FitResult, fit
from mangakd.training.loggers import RunLogger
from mangakd.training.quantise import quantising
from mangakd.training.stages import Stage

CHECKS = 20  # validations of a baseline at most: on few labels its epochs are short and many


@dataclass(frozen=True)
class Distilled:
    """student: of the last stage. result: of its fit. steps: optimizer steps of the stages that trained this student.

    quantised: the Hugging Face model with its quantisers, where the last stage trained them.
    """

    student: Encoder
    result: FitResult
    steps: int
    quantised: Any = None


def distil(setup: Setup, teacher: TeacherProvider, reference: Answers) -> Distilled:
    """All stages. reference: the teacher's answers on validation."""
    stages = setup.stages
    loggers = [] if not setup.loggers else [RunLogger(setup.loggers, setup.resolved())]
    model: Encoder | None = None
    steps = 0
    for number, stage in enumerate(stages, 1):
        provider = _teacher(setup, stage, teacher, model)
        if model is None or stage.student is not None or stages[number - 2].student is not None:
            model, steps = setup.build_student(stage.student), 0
        title = "distil student" if len(stages) == 1 else f"stage {number} of {len(stages)}, {stage.name}"
        folder = setup.folder if len(stages) == 1 else setup.folder / "stages" / f"{number}_{stage.name}"
        todo = _fit(setup, title, folder, reference, setup.identity(provider, stage), stage)
        todo.loggers = loggers
        losses = setup.stage_losses(stage, model.spec, provider.spec)
        if "logits" in reference:
            losses.calibrate(reference["logits"])
        with stage.freezing(model), quantising(stage, model, setup.splits["train"]) as quantised:
            result = fit(model, losses, provider, todo)
        steps += result.steps
        for logger in loggers:
            logger.move_on(result.steps)
    assert model is not None
    return Distilled(model, result, steps, quantised.model)


def _teacher(setup: Setup, stage: Stage, teacher: TeacherProvider, model: Encoder | None) -> TeacherProvider:
    """model: what the stages before have trained."""
    if stage.teacher == "run":
        return teacher
    if stage.teacher == "stored":
        return stored(setup.teacher).provider(setup.context)
    if model is None:
        raise UserError(f"{stage.key('teacher')}=previous: there is no stage before the first one; set it to run.")
    return LocalTeacher(copy.deepcopy(model), setup.head)


def without_teacher(setup: Setup, student: Encoder, reference: Answers, steps: int) -> FitResult:
    """The same student, seed and number of steps, on the labelled texts alone."""
    losses = LossSet({"own_loss": setup.task.own_loss()})
    losses.bind(student.spec, None)
    epochs = max(round(steps / math.ceil(len(setup.splits["train"]) / setup.hardware.step_rows)), 1)
    alone = Stage("baseline", epochs=epochs, keep="best")
    todo = _fit(setup, "baseline without KD", setup.folder / "baseline", reference, setup.identity(None, alone), alone)
    todo.trainer["check_val_every_n_epoch"] = math.ceil(epochs / CHECKS)
    return fit(student, losses, None, todo)


def _fit(setup: Setup, title: str, folder: Path, reference: Answers, identity: Identity, stage: Stage) -> Fit:
    """`resume=auto` goes on from the folder's newest whole checkpoint, if there is one."""
    trainer: dict[str, Any] = dict(setup.config.trainer)
    trainer["max_epochs"] = stage.epochs or trainer["max_epochs"]
    todo = Fit(
        title, folder, setup.task, setup.stage_split(stage), setup.splits["validation"],
        replace(setup.optim, lr=stage.lr or setup.optim.lr), setup.hardware, setup.config.seed, trainer, reference,
        save_every=setup.save_every, identity=identity, keep=stage.keep, patience=stage.patience,
    )  # fmt: skip
    if setup.config.resume == "auto":
        todo.resume = ranks.share(newest(todo.checkpoints) if ranks.is_first() else None)
    elif setup.config.resume is not False and stage.name != "baseline":
        todo.resume = _given(setup.config.resume, setup.stages)
    return todo


def _given(resume: Any, stages: Sequence[Stage]) -> Path:
    if len(stages) > 1:
        raise UserError(f"resume={resume}: a run of {len(stages)} stages has several checkpoints; use resume=auto.")
    return Path(str(resume))
