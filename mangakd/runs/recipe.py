"""The stages of a recipe, one fit after the other, and the baseline that gets as many steps without a teacher."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import ModelSpec
from mangakd.data.encoded import EncodedSplit
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.runs.answers import answers_of_some
from mangakd.runs.fits import Fits
from mangakd.runs.students import Students
from mangakd.runs.texts import Splits, limited, stage_rows
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.local import LocalTeacher
from mangakd.training.fit import FitResult, fit
from mangakd.training.loggers import RunLogger
from mangakd.training.quantise import quantising
from mangakd.training.stages import Stage

VALIDATIONS = 20  # of a baseline, at most: on few labels its epochs are short and many


@dataclass(frozen=True)
class Recipe:
    """folder: of the run. train: the training rows with what the teacher mined for them. losses: fresh losses of a stage, bound
    to student and teacher. stored: the run's teacher, read from its store. loggers: None for logger=[]."""

    stages: Sequence[Stage]
    folder: Path
    fits: Fits
    splits: Splits
    train: EncodedSplit
    students: Students
    losses: Callable[[Stage, ModelSpec, ModelSpec], LossSet]
    teacher: TeacherProvider
    stored: Callable[[], TeacherProvider]
    loggers: RunLogger | None

    @property
    def baseline_rows(self) -> EncodedSplit:
        """The labelled rows; no more of them than the stages learn from."""
        limits = [stage.limit for stage in self.stages]
        return limited(self.splits["train"], None if None in limits else max(filter(None, limits)))


@dataclass(frozen=True)
class Distilled:
    """student: of the last stage. result: of its fit. steps: optimizer steps of the stages that trained this student.

    quantised: the Hugging Face model with its quantisers, where the last stage trained them.
    """

    student: Encoder
    result: FitResult
    steps: int
    quantised: Any = None

    def metrics(self, monitor: str) -> dict[str, float]:
        """Of training and validation. monitor: the score that the result is of."""
        speed = self.result.samples_per_second
        return {"train/samples_per_second": speed, "train/steps": self.steps, f"val/{monitor}": self.result.score}


def distil(recipe: Recipe) -> Distilled:
    """All stages. Raises UserError for a checkpoint given by its path to a run of several stages."""
    stages, resume = recipe.stages, recipe.fits.resume
    if len(stages) > 1 and resume not in (False, "auto"):
        raise UserError(f"resume={resume}: a run of {len(stages)} stages has several checkpoints; use resume=auto.")
    model: Encoder | None = None
    steps = 0
    for number, stage in enumerate(stages, 1):
        teacher = _teacher(recipe, stage, model)
        if model is None or stage.student is not None or stages[number - 2].student is not None:
            model, steps = recipe.students.build(stage.student), 0
        result, quantised = _fit(recipe, number, model, teacher)
        steps += result.steps
    assert model is not None
    return Distilled(model, result, steps, quantised)


def _fit(recipe: Recipe, number: int, model: Encoder, teacher: TeacherProvider) -> tuple[FitResult, Any]:
    """One stage, from 1 on: its result, and the model with its quantisers."""
    stage, one = recipe.stages[number - 1], len(recipe.stages) == 1
    title = "distil student" if one else f"stage {number} of {len(recipe.stages)}, {stage.name}"
    folder = recipe.folder if one else recipe.folder / "stages" / f"{number}_{stage.name}"
    options = recipe.fits.fit(title, folder, stage_rows(recipe.splits, stage), stage, teacher)
    # The identity is of the rows as they were given, which is what is known before a teacher has mined.
    options.train = stage_rows({**recipe.splits, "train": recipe.train}, stage)
    options.loggers = [recipe.loggers] if recipe.loggers is not None else []
    losses = recipe.losses(stage, model.spec, teacher.spec)
    if "logits" in recipe.fits.reference:
        losses.calibrate(recipe.fits.reference["logits"])
    if losses.calibrates_on("train"):
        losses.calibrate(answers_of_some(teacher, options.train, recipe.fits.hardware), "train")
    with stage.freezing(model), quantising(stage, model, recipe.splits["train"]) as quantised:
        result = fit(model, losses, teacher, options)
    if recipe.loggers is not None:
        recipe.loggers.move_on(result.steps)
    return result, quantised.model


def _teacher(recipe: Recipe, stage: Stage, model: Encoder | None) -> TeacherProvider:
    """model: what the stages before have trained."""
    if stage.teacher == "run":
        return recipe.teacher
    if stage.teacher == "stored":
        return recipe.stored()
    if model is None:
        raise UserError(f"{stage.key('teacher')}=previous: there is no stage before the first one; set it to run.")
    return LocalTeacher(copy.deepcopy(model), recipe.teacher.spec.head)


def without_teacher(fits: Fits, student: Encoder, train: EncodedSplit, folder: Path, steps: int) -> FitResult:
    """The same student, seed and number of steps, on the labelled texts alone."""
    losses = LossSet({"own_loss": fits.task.own_loss()})
    losses.bind(student.spec, None)
    epochs = max(round(steps / fits.hardware.step.count(train.row_tokens)), 1)
    alone = Stage("baseline", epochs=epochs, keep="best")
    options = fits.fit("baseline without KD", folder, train, alone, None)
    options.trainer["check_val_every_n_epoch"] = math.ceil(epochs / VALIDATIONS)
    return fit(student, losses, None, options)
