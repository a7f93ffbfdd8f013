"""All that can be checked before anything is trained, with all problems told at once. `validate=true` stops here.

A check is a function of the run's `Setup` that raises UserError. They are in the order in which a reader would mend
them; each asks for the parts it needs, so one problem never hides another that does not depend on it.
"""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mangakd.cli import check_models as models
from mangakd.cli.mistakes import explained
from mangakd.cli.setup import Setup
from mangakd.cli.values import misspelt, warn_ignored, wrong_values
from mangakd.core.errors import UserError, near
from mangakd.core.requires import Need
from mangakd.evaluation import gate
from mangakd.store.manifest import MANIFEST_FILE, Manifest
from mangakd.teachers.base import all_layers
from mangakd.teachers.cached import Cached
from mangakd.training.check import check_trainer
from mangakd.training.checkpoints import newest, read
from mangakd.training.machine import slow_profile, wrong_profile
from mangakd.training.quantise import check as check_quantise
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)
GB = 1e9


def check(setup: Setup) -> None:
    """Raises one UserError that lists every problem found."""
    values = list(wrong_values(setup.config))
    problems = [*values, *misspelt(setup.config)]
    checks: list[Callable[[Setup], object]] = [
        machine, trainer, folders, run_folder, lambda s: s.task, lambda s: s.optim, lambda s: s.loggers, lambda s: s.rows,
        lambda s: s.corpus, monitor, gate_lines, lambda s: s.teacher, lambda s: s.teacher_tokenizer, models.teachers, store,
        lambda s: s.student_tokenizer, models.student, models.lengths, lambda s: s.losses, recipe, provided, models.taps,
        models.resumed, disk, exports,
    ]  # fmt: skip
    for step in checks:
        try:
            step(setup)
        except Exception as error:
            # A part that failed once fails again for those that need it.
            problems += [text for text in _told(error, bool(values)) if text not in problems]
    warn_ignored(setup.config)
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise UserError(
            f"{count} found before training:\n" + "\n".join(f"  {i}. {p}" for i, p in enumerate(problems, 1))
        )


def _told(error: Exception, wrong_value: bool) -> list[str]:
    """The problems behind an exception that a user can mend; any other is raised again, being a bug.

    wrong_value: values were already found wrong, and what a part makes of them adds nothing.
    """
    message = user_message(error)
    if message is not None:
        return [text.removeprefix("- ") for text in message.split("\n- ")]
    if wrong_value:
        return []
    if isinstance(error, HydraException):  # a constructor that does not take what the config gives it
        lines = str(error).splitlines()
        key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "the config")
        return [f"{key}: {error.__cause__ or lines[0]}. Mend the keys under {key}; --help lists them."]
    if isinstance(error, OmegaConfBaseException):
        return [explained(error, "train").splitlines()[0]]
    raise error


def user_message(error: BaseException | None) -> str | None:
    """The UserError behind an exception; Hydra wraps what constructors raise."""
    while error is not None:
        if isinstance(error, UserError):
            return str(error)
        error = error.__cause__
    return None


def machine(setup: Setup) -> None:
    """A profile that this machine cannot serve, or that contradicts itself."""
    if not all(isinstance(count, int) for count in (setup.hardware.devices, setup.hardware.nodes)):
        return  # told by their keys
    problems = list(wrong_profile(setup.hardware, HydraConfig.get().runtime.choices["hardware"]))
    if problems:
        raise UserError("\n- ".join(problems))
    if slow := slow_profile(setup.hardware):
        log.warning(slow)


def trainer(setup: Setup) -> None:
    if isinstance(setup.config.trainer.max_epochs, int):
        check_trainer(setup.hardware, dict(setup.config.trainer))


def folders(setup: Setup) -> None:
    """Folders that cannot be written."""
    for folder, key in ((setup.folder, "hydra.run.dir"), (setup.cache, "paths.cache")):
        place = _nearest(folder)
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            what = "is no folder" if not place.is_dir() else "may not be written"
            raise UserError(f"{key}={folder} cannot be used: {place} {what}. Set {key} to a folder of yours.")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the first one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def run_folder(setup: Setup) -> None:
    """A folder that holds another run, or a checkpoint to resume that is not there."""
    resume = setup.config.resume
    held = [
        name for name in ("config.yaml", "metrics.json", "student", "checkpoints") if (setup.folder / name).exists()
    ]
    if held and resume is False:
        raise UserError(
            f"hydra.run.dir={setup.folder} holds another run ({', '.join(held)}). Choose another folder, "
            "or go on with that run with resume=auto."
        )
    if resume is False:
        return
    if resume == "auto":
        newest(setup.folder / "checkpoints")  # its bytes; what it was written with is known when the teacher is
    elif not Path(str(resume)).is_file():
        raise UserError(f"resume={resume}: there is no such checkpoint. Use resume=auto or resume=false.")
    else:
        read(Path(str(resume)))


def disk(setup: Setup) -> None:
    """Room for the last checkpoint, the one before it and the one being written (weights and optimizer: 12 bytes a
    parameter), the best weights and the student."""
    need = sum(p.numel() for p in setup.student_shape.parameters()) * (3 * 12 + 2 * 4)
    free = shutil.disk_usage(_nearest(setup.folder)).free
    if free < need:
        raise UserError(
            f"checkpoints and student need about {need / GB:.1f} GB, {free / GB:.1f} GB are free in {setup.folder}: "
            "set hydra.run.dir to another disk."
        )


def monitor(setup: Setup) -> None:
    """A metric that the task does not have."""
    task = setup.task
    known = task.judge.monitors
    if task.monitor not in known:
        raise UserError(
            f"task.monitor={task.monitor!r} is no metric{near(task.monitor, known)} Known: {', '.join(known)}."
        )


def gate_lines(setup: Setup) -> None:
    """Lines of the gate that cannot be tested: the report would refuse them after training."""
    gate.lines(OmegaConf.to_container(setup.config.gate, resolve=True), setup.task.judge)  # type: ignore[arg-type]


def store(setup: Setup) -> None:
    """What a named store declares, as far as it is known before the teacher is loaded."""
    options = setup.teacher
    if not isinstance(options, Cached) or options.store is None:
        return
    folder = Path(options.store).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"teacher.store={options.store} is a file; give a folder.")
    if (folder / MANIFEST_FILE).is_file():
        found = Manifest.load(folder)
        expected = replace(found, tokenizer=setup.teacher_spec.vocabulary, head=setup.head, members=len(options.models))
        found.compare(expected, folder, options.allow_mismatch)


def recipe(setup: Setup) -> None:
    """Stages that name losses, texts, parts or models that are not there."""
    texts = {"labelled": True, "unlabelled": len(setup.corpus.unlabelled) > 0, "augmented": setup.augment.copies > 0}
    for number, stage in enumerate(setup.stages):
        stage.select(setup.losses.callbacks)
        stage.check_frozen(setup.student_spec.layers)
        if number == 0 and stage.teacher == "previous":
            raise UserError(f"{stage.key('teacher')}=previous: there is no stage before the first one; set it to run.")
        for kind in stage.texts:
            if not texts[kind]:
                key = "augment.copies" if kind == "augmented" else "data.unlabelled_path or data.labelled_share"
                raise UserError(f"{stage.key('texts')} reads {kind} texts and there are none: set {key}.")
    check_quantise(setup.stages, setup.hardware, len(setup.corpus.train))


def exports(setup: Setup) -> None:
    """Variants that cannot be made, and those that no stage of this run trains."""
    rows = setup.exports.rows if setup.exports.callbacks else []
    trained = [row.name for row in rows if row.trained]
    if trained and setup.stages[-1].quantise is None:
        raise UserError(
            f"export: {trained[0]} comes of a last stage with quantisers, and there is none: stages=quantised."
        )


def provided(setup: Setup) -> None:
    """Losses that ask for more than the teacher provider gives."""
    if setup.hardware.teacher.placement == "cached" and not isinstance(setup.teacher, Cached):
        raise UserError(
            "this hardware profile keeps no teacher in memory (hardware.teacher.placement=cached): use teacher=cached."
        )
    problems = []
    for stage in setup.stages:
        kind, gives = _gives(setup, stage)
        only = "logits only" if gives == Need(logits=True) else gives
        for name, loss in stage.select(setup.losses.callbacks).items():
            what = loss.requires.teacher.missing(gives)
            if what:
                problems.append(
                    f"losses.{name} needs {what} from the teacher, but {kind} gives {only}. Use teacher=local, or leave {name} "
                    "out of losses."
                )
    if problems:
        raise UserError("\n- ".join(problems))


def _gives(setup: Setup, stage: Stage) -> tuple[str, Need]:
    """(what to call it, what it gives) of a stage's teacher."""
    if stage.teacher == "stored":
        return f"{stage.key('teacher')}=stored", Need(logits=True)
    if stage.teacher == "previous":
        return f"{stage.key('teacher')}=previous", all_layers(setup.student_spec)
    return f"teacher={type(setup.teacher).__name__.lower()}", setup.teacher.gives(setup.teacher_spec)
