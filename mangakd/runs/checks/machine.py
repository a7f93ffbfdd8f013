"""Preflight of the machine: the hardware profile, Lightning's arguments, folders, checkpoints to resume from, disk."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.training.check import check_trainer
from mangakd.training.checkpoints import newest, read
from mangakd.training.hardware import Hardware
from mangakd.training.machine import lost_steps, slow_profile, wrong_profile
from mangakd.training.optim import Optim
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)
GB = 1e9


def profile(hardware: Hardware, name: str) -> None:
    """A profile that this machine cannot serve, or that contradicts itself."""
    if not all(isinstance(count, int) for count in (hardware.devices, hardware.nodes)):
        return  # reported by their keys
    problems = list(wrong_profile(hardware, name))
    if problems:
        raise UserError("\n- ".join(problems))
    if slow := slow_profile(hardware):
        log.warning(slow)


def rates(hardware: Hardware, optim: Optim, stages: Sequence[Stage]) -> None:
    """Learning rates that are too small for the precision: warned about."""
    for text in lost_steps(hardware, {"optim.lr": optim.lr, **{each.key("lr"): each.lr for each in stages if each.lr}}):
        log.warning(text)


def trainer(hardware: Hardware, options: dict[str, Any]) -> None:
    """Arguments that lightning.Trainer refuses."""
    if isinstance(options["max_epochs"], int):
        check_trainer(hardware, options)


def writable(folder: Path, key: str) -> None:
    """A folder that cannot be written. key: the setting that names it."""
    place = _nearest(folder)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = "is no folder" if not place.is_dir() else "may not be written"
        raise UserError(f"{key}={folder} cannot be used: {place} {what}. Set {key} to a folder of yours.")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the first one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def run_folder(folder: Path, resume: bool | str) -> None:
    """A folder that holds another run, or a checkpoint to resume that is not there."""
    files = [name for name in ("config.yaml", "metrics.json", "student", "checkpoints") if (folder / name).exists()]
    if files and resume is False:
        raise UserError(
            f"hydra.run.dir={folder} holds another run ({', '.join(files)}). Choose another folder, "
            "or go on with that run with resume=auto."
        )
    if resume is False:
        return
    if resume == "auto":
        newest(folder / "checkpoints")  # its bytes; what it was written with is known when the teacher is
    elif not Path(str(resume)).is_file():
        raise UserError(f"resume={resume}: there is no such checkpoint. Use resume=auto or resume=false.")
    else:
        read(Path(str(resume)))


def disk(folder: Path, student: Any, learns: int | None) -> None:
    """Room for the last checkpoint, the one before it and the one being written (weights and optimizer: 12 bytes a
    parameter), the best weights and the student. student: its modules on the meta device. learns: parameters that learn
    beside frozen ones; None: all."""
    every = sum(p.numel() for p in student.parameters())
    need = (every if learns is None else learns) * (3 * 12 + 4) + every * 4
    free = shutil.disk_usage(_nearest(folder)).free
    if free < need:
        raise UserError(
            f"checkpoints and student need about {need / GB:.1f} GB, {free / GB:.1f} GB are free in {folder}: "
            "set hydra.run.dir to another disk."
        )
