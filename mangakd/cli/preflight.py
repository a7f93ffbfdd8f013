"""All that can be checked before anything is trained, with all problems told at once. `validate=true` stops here."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig

from mangakd.cli.setup import Setup
from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.models.labels import alignment

GB = 1e9


def check(setup: Setup) -> None:
    """Raises one UserError that lists every problem found."""
    problems: list[str] = []
    checks: list[Callable[[Setup], object]] = [
        values, machine, run_folder, disk, lambda s: s.task, lambda s: s.optim, lambda s: s.corpus, targets,
        lambda s: s.teacher, lambda s: s.teacher_tokenizer, teacher_labels, lambda s: s.student_tokenizer,
        lambda s: s.losses, provided,
    ]  # fmt: skip
    for step in checks:
        try:
            step(setup)
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            if message not in problems:  # a part that failed once fails again for those that need it
                problems.append(message)
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise UserError(
            f"{count} found before training:\n" + "\n".join(f"  {i}. {p}" for i, p in enumerate(problems, 1))
        )


def user_message(error: BaseException | None) -> str | None:
    """The UserError behind an exception; Hydra wraps what constructors raise."""
    while error is not None:
        if isinstance(error, UserError):
            return str(error)
        error = error.__cause__
    return None


def values(setup: Setup) -> None:
    """Numbers outside their range."""
    config = setup.config
    wrong = [
        _outside(config, "distill.temperature", lambda v: v > 0, "above 0"),
        _outside(config, "distill.alpha", lambda v: 0 <= v <= 1, "in [0, 1]"),
        _outside(config, "distill.beta", lambda v: v >= 0, "at least 0"),
        _outside(config, "distill.gamma", lambda v: v >= 0, "at least 0"),
        _outside(config, "optim.lr", lambda v: v > 0, "above 0"),
        _outside(config, "optim.warmup", lambda v: 0 <= v < 1, "in [0, 1)"),
        _outside(config, "hardware.batch_size", lambda v: v >= 1, "at least 1"),
        _outside(config, "hardware.eval_batch_size", lambda v: v >= 1, "at least 1"),
        _outside(config, "trainer.max_epochs", lambda v: v >= 1, "at least 1"),
        _outside(config, "data.max_length", lambda v: v >= 4, "at least 4 tokens"),
    ]
    if any(wrong):
        raise UserError("; ".join(text for text in wrong if text) + ".")


def _outside(config: DictConfig, key: str, good: Callable[[float], bool], words: str) -> str:
    group, name = key.split(".")
    value = config[group][name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not good(value):
        return f"{key}={value} must be {words}"
    return ""


def machine(setup: Setup) -> None:
    """A profile that this machine cannot serve."""
    want = setup.hardware
    found = {"cpu": 1, "gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    have = ", ".join(f"{count} {name}" if name != "cpu" else "a CPU" for name, count in found.items() if count)
    if want.accelerator not in (*found, "auto"):
        raise UserError(f"hardware.accelerator={want.accelerator} is unknown; known: auto, {', '.join(found)}.")
    if want.accelerator in ("gpu", "mps") and found[want.accelerator] < want.devices:
        raise UserError(
            f"this hardware profile needs {want.devices} {want.accelerator}; this machine has {have}. "
            "Use hardware=auto, which takes what there is" + (", or hardware=cpu." if have == "a CPU" else ".")
        )


def run_folder(setup: Setup) -> None:
    """A folder that holds another run, or a checkpoint to resume that is not there."""
    held = [
        name for name in ("config.yaml", "metrics.json", "student", "checkpoints") if (setup.folder / name).exists()
    ]
    if held and setup.config.resume is False and not setup.config.validate:
        raise UserError(
            f"hydra.run.dir={setup.folder} holds another run ({', '.join(held)}). Choose another folder, "
            "or go on with that run with resume=auto."
        )
    if (
        isinstance(setup.config.resume, str)
        and setup.config.resume != "auto"
        and not Path(setup.config.resume).is_file()
    ):
        raise UserError(f"resume={setup.config.resume}: there is no such checkpoint. Use resume=auto or resume=false.")


def disk(setup: Setup) -> None:
    """Room for two checkpoints of weights and optimizer, and the student."""
    spec = setup.student_spec
    config = setup.student.config(setup.teacher_config, setup.student_tokenizer)
    parameters = config.vocab_size * spec.hidden + spec.layers * 12 * spec.hidden**2
    need = parameters * 4 * 5
    free = shutil.disk_usage(next(p for p in (setup.folder, *setup.folder.parents) if p.exists())).free
    if free < need:
        raise UserError(
            f"checkpoints and student need about {need / GB:.1f} GB, {free / GB:.1f} GB are free in {setup.folder}: "
            "set hydra.run.dir to another disk."
        )


def targets(setup: Setup) -> None:
    for rows in setup.corpus.splits.values():
        setup.task.targets(rows, setup.corpus.labels)


def teacher_labels(setup: Setup) -> None:
    """A fine-tuned teacher's label names against the data's."""
    if setup.teacher.fit.mode == "always":
        return
    for member in setup.teacher.models:
        from mangakd.models.load import load_config

        config = load_config(member.path)
        if any("SequenceClassification" in name for name in config.architectures or []):
            names = tuple(setup.teacher.labels or (config.id2label[i] for i in range(config.num_labels)))
            alignment(names, setup.corpus.labels, member.path)


def provided(setup: Setup) -> None:
    """Losses that ask for more than the teacher provider gives."""
    gives = setup.teacher.gives(setup.teacher_spec)
    for name, loss in setup.losses.callbacks.items():
        lacking = loss.requires.teacher.missing(gives)
        if lacking:
            kind = type(setup.teacher).__name__.lower()
            raise UserError(
                f"losses.{name} needs {lacking} from the teacher, but teacher={kind} gives "
                f"{'logits only' if gives == Need(logits=True) else gives}. Use teacher=local, or leave {name} out of losses."
            )
