"""Preflight of the recipe: metric, stages, what losses ask of the teacher, exports, and what a checkpoint has learnt from."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mangakd.core.errors import UserError, near
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.core.token_logits import TokenAnswer
from mangakd.data.rows import Rows
from mangakd.export.variants import check_has
from mangakd.losses.base import ALWAYS, LossCallback
from mangakd.losses.loss_set import LossSet
from mangakd.runs.exports import Exports
from mangakd.runs.texts import KEYS
from mangakd.tasks.base import Task
from mangakd.teachers.base import all_layers
from mangakd.teachers.cached import Cached, stored
from mangakd.teachers.options import TeacherOptions
from mangakd.training.checkpoints import KEY, Identity, check_same, check_steps, read
from mangakd.training.hardware import Hardware
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)


def monitor(task: Task) -> None:
    """A metric that the task does not have."""
    monitors = task.judge.monitors
    if task.monitor not in monitors:
        raise UserError(
            f"task.monitor={task.monitor!r} is no metric{near(task.monitor, monitors)} Known: {', '.join(monitors)}."
        )


def stages(
    stages: Sequence[Stage], losses: Mapping[str, LossCallback], student: ModelSpec, texts: Mapping[str, bool]
) -> None:
    """Stages that name losses, texts, layers or models that are not there. texts: kind → whether the run has such texts."""
    for number, stage in enumerate(stages):
        stage.select(dict(losses))
        stage.check_frozen(student.layers)
        if number == 0 and stage.teacher == "previous":
            raise UserError(f"{stage.key('teacher')}=previous: there is no stage before the first one; set it to run.")
        for kind in stage.texts:
            if not texts.get(kind, True):
                raise UserError(f"{stage.key('texts')} reads {kind} texts and there are none: set {KEYS[kind]}.")
        _warn_unread(stage, losses)


def _warn_unread(stage: Stage, losses: Mapping[str, LossCallback]) -> None:
    """Texts that teach nothing, and an epoch that is waited for and thrown away."""
    new = [kind for kind in stage.texts if kind != "labelled"]
    if new and all(loss.requires.labels for loss in stage.select(dict(losses)).values()):
        log.warning(
            "%s reads %s texts, which have no labels, and all losses of the stage learn from labels: these texts teach nothing.",
            stage.key("texts"), " and ".join(new),
        )  # fmt: skip
    if stage.patience and stage.keep == "last":
        log.warning(
            "%s=%d ends the stage after its best epoch, and %s=last keeps the last one: set %s=best.",
            stage.key("patience"), stage.patience, stage.key("keep"), stage.key("keep"),
        )  # fmt: skip


def exports(exports: Exports, stages: Sequence[Stage], task: Task) -> None:
    """Variants that cannot be made, those that no stage of this run trains, and those that students which write do not have."""
    rows = exports.rows
    if task.kind == "tokens":
        check_has(rows)
    trained = [row.name for row in rows if row.trained]
    if trained and stages[-1].quantise is None:
        raise UserError(
            f"export: {trained[0]} comes of a last stage with quantisers, and there is none: stages=quantised."
        )


def labels(task: Task, train: Rows, losses: Mapping[str, LossCallback], baseline: bool, fit: str) -> None:
    """What learns from labels, on training rows without any. fit: teacher.fit.mode."""
    if task.has_labels(train):
        return
    readers = [f"losses.{name}" for name, loss in losses.items() if loss.requires.labels]
    readers += ["baseline=true"] * baseline + [f"teacher.fit.mode={fit}"] * (fit == "always")
    if readers:
        columns = ", ".join(task.optional)
        raise UserError(
            f"{', '.join(readers)}: learning from labels, and no row of train has one"
            f"{f' (columns of this task that hold them: {columns})' if columns else ''}. Add labels, or leave this out."
        )


def units(losses: LossSet, task: Task) -> None:
    """Losses that are divided by something of which the task's rows have no number."""
    for name, loss in losses.callbacks.items():
        if loss.unit not in (*ALWAYS, *task.units):
            raise UserError(
                f"losses.{name} counts {loss.unit}, which rows of task={task.name} do not have (they have "
                f"{', '.join((*ALWAYS, *task.units))}). Leave {name} out of losses."
            )


def comparing(losses: LossSet, hardware: Hardware) -> None:
    """Losses that compare rows and cannot gather those of other devices, on a profile of several."""
    left_out = ", ".join(f"losses.{name}=null" for name in losses.of_one_device)
    losses.check_ranks(hardware.world, f"Choose a hardware profile of one device, or leave them out: {left_out}.")


def batches(hardware: Hardware, max_length: int) -> None:
    """Batches of fewer tokens than a sequence may have."""
    most = hardware.tokens_per_batch
    if most is not None and max_length > most:
        raise UserError(
            f"hardware.tokens_per_batch={most} holds no sequence of data.max_length={max_length} tokens. Set "
            f"hardware.tokens_per_batch={max_length} or more, or lower data.max_length."
        )


def packing(losses: Mapping[str, LossCallback], head: Callable[[], Head], active: bool) -> None:
    """Packed rows beside losses that compare layers token by token, and beside heads whose texts are not packed."""
    if not active:
        return
    if head().source:
        raise UserError(
            "hardware.packing=true packs sequences that a decoder alone reads, and this task's models have an encoder and a "
            "decoder. Set hardware.packing=false; batches of similar length hold little padding as it is."
        )
    if head().kind != "tokens":
        log.warning("hardware.packing=true packs the sequences of language models; it changes nothing here.")
    for name, loss in losses.items():
        both = loss.requires.student | loss.requires.teacher
        if both.hidden or both.attention:
            raise UserError(
                f"losses.{name} compares layers token by token, and packed rows have other places for tokens: set "
                f"hardware.packing=false, or leave {name} out of losses."
            )


def placement(options: TeacherOptions, place: str) -> None:
    """A profile that keeps no teacher in memory. place: hardware.teacher.placement."""
    if place == "cached" and options.models and not isinstance(options, Cached):
        raise UserError(
            "this hardware profile keeps no teacher in memory (hardware.teacher.placement=cached): use teacher=cached."
        )


def provided(
    options: TeacherOptions, stages: Sequence[Stage], losses: Mapping[str, LossCallback], teacher: ModelSpec, student: ModelSpec
) -> None:  # fmt: skip
    """Losses that ask for more than the teacher provider gives, or cannot learn from how it answers."""
    problems = []
    for stage in stages:
        kind, gives, answer = _gives(options, stage, teacher, student)
        only = "answers only" if gives == Need(answer=True) else gives
        for name, loss in stage.select(dict(losses)).items():
            if what := loss.requires.teacher.missing(gives):
                cure = _cure(stage, options.gives(teacher), loss.requires.teacher)
                problems.append(
                    f"losses.{name} needs {what} from the teacher, but {kind} gives {only}. {cure}, or leave {name} out of "
                    "losses."
                )
            elif answer is not None:
                problems += _misfit(loss, answer)
    if problems:
        raise UserError("\n- ".join(problems))


def _cure(stage: Stage, gives: Need, need: Need) -> str:
    """Which teacher of the stage gives what a loss needs: the run's own while it answers, or a single model."""
    if stage.teacher == "stored" and not need.missing(gives):
        return f"Set {stage.key('teacher')}=run"
    return "Use teacher=local" + (f" and {stage.key('teacher')}=run" if stage.teacher == "stored" else "")


def _misfit(loss: LossCallback, answer: TokenAnswer) -> list[str]:
    try:
        loss.check_answer(answer)
    except UserError as error:
        return [str(error)]
    return []


def _gives(
    options: TeacherOptions, stage: Stage, teacher: ModelSpec, student: ModelSpec
) -> tuple[str, Need, TokenAnswer | None]:
    """(name for messages, what it gives, how it answers for tokens) of a stage's teacher."""
    if stage.teacher == "stored":
        own = stored(options, teacher.head.kind)
        return f"{stage.key('teacher')}=stored", Need(answer=True), own.answer(teacher)
    if stage.teacher == "previous":
        return f"{stage.key('teacher')}=previous", all_layers(student), None
    return f"teacher={type(options).__name__.lower()}", options.gives(teacher), options.answer(teacher)


def resumed(file: Path | None, stages: Sequence[Stage], hardware: Hardware, identity: Callable[[], Identity]) -> None:
    """Other data, labels, stages or kinds of steps than those of the checkpoint that a run continues from.

    identity: what the first stage learns from; asked where there is a checkpoint, as texts are tokenised for it.
    """
    if file is None or len(stages) > 1:
        return
    before = read(file)[KEY]
    check_steps(file, before, hardware)
    check_same(file, before, replace(identity(), teacher=before["teacher"], settings=before["settings"]))
