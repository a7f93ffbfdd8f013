"""Checkpoints that survive a kill at any moment, and that record the inputs of their run.

A checkpoint is written to a scratch file, flushed to the disk and renamed. Before the rename `last.ckpt` moves to
`last-previous.ckpt`, so one whole file exists at every moment. A file is whole if it has its zip directory and if every record
matches its CRC-32, which torch.save writes. Optimizer states are stored under parameter names. Lightning stores numbers: by
group without sharding, by module with sharding. A state of one numbering would load into the wrong parameters of the other.
"""

import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from mangakd.core.errors import UserError
from mangakd.core.files import sync_folder
from mangakd.data.steps import StepSize, TokenSteps, step_of
from mangakd.training.hardware import Hardware

log = logging.getLogger(__name__)
LAST, PREVIOUS = "last.ckpt", "last-previous.ckpt"
KEY = "mangakd"  # our entry in Lightning's checkpoint


class AtomicIO(TorchCheckpointIO):
    """Raises UserError if the disk is full or the folder is gone. The previous checkpoint stays."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_name(f"{file.name}.writing")
        try:
            with scratch.open("wb") as handle:
                torch.save(checkpoint, handle)
                handle.flush()
                os.fsync(handle.fileno())
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a full disk
            scratch.unlink(missing_ok=True)
            raise UserError(
                f"the checkpoint {file} could not be written: {str(error).splitlines()[0]}. The previous checkpoint is intact. "
                "Free disk space and resume with resume=auto."
            ) from error
        if file.name == LAST and file.exists():
            file.replace(file.with_name(PREVIOUS))
        scratch.replace(file)
        sync_folder(file.parent)


def damage(file: Path) -> str:
    """Why a checkpoint's bytes are damaged; empty for a whole file."""
    try:
        with zipfile.ZipFile(file) as archive:
            member = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return str(error)
    return f"{member} has another checksum" if member else ""


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a fit's folder, None if the folder has no checkpoint.

    Logs a warning for a damaged file. Raises UserError if all files are damaged.
    """
    files = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for file in files:
        reason = damage(file)
        if not reason:
            return file
        log.warning(
            "%s is damaged (%s)%s.",
            file,
            reason,
            "; resuming from the previous checkpoint" if file.name == LAST else "",
        )
    if files:
        raise UserError(f"no whole checkpoint is left in {folder}. Delete that folder to start from the beginning.")
    return None


@dataclass(frozen=True)
class Identity:
    """The inputs of a fit. A checkpoint resumes only with equal inputs. Other `settings` are logged and do not prevent resuming.

    teacher: fingerprint, or None. data: digest of the training and validation rows. labels: names in the head's order. stage:
    the name of the fit.
    """

    teacher: str | None = None
    data: str = ""
    labels: Sequence[str] = ()
    stage: str = ""
    settings: Mapping[str, Any] | None = None


WORDS = {"labels": "the label set", "data": "the data", "teacher": "the teacher", "stage": "the stage"}


def check_same(file: Path, record: Mapping[str, Any], now: Identity) -> None:
    """Raises UserError that names the input that differs. Logs settings that differ."""
    for name, words in WORDS.items():
        before, after = record.get(name), getattr(now, name)
        before, after = (tuple(x) if isinstance(x, list | tuple) else x for x in (before, after))
        if before != after:
            raise UserError(
                f"{file} was written with other inputs: {words} changed, from {_short(before)} to {_short(after)}. Resume with "
                "the inputs of the checkpoint, or start a new run with resume=false and another hydra.run.dir."
            )
    before, after = record.get("settings") or {}, now.settings or {}
    changes = [f"{k} {before.get(k)} → {after.get(k)}" for k in {**before, **after} if before.get(k) != after.get(k)]
    if changes:
        log.warning("resumed with other settings, so not what one run would give: %s.", "; ".join(changes))


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def check_steps(file: Path, record: Mapping[str, Any], hardware: Hardware) -> None:
    """Raises UserError if one of both runs has steps of rows and the other one steps of tokens."""
    before, now = step_of(record), hardware.step
    if type(before) is not type(now):
        key = before.tokens if isinstance(before, TokenSteps) else "null"
        raise UserError(
            f"{file} was written by steps of {before}, and this run has steps of {now}, which would hold other rows. Set "
            f"hardware.tokens_per_batch={key}, or start a new run with resume=false and another hydra.run.dir."
        )


def resume_step(file: Path, record: Mapping[str, Any], hardware: Hardware, lengths: np.ndarray) -> tuple[StepSize, int]:
    """(size of a step, accumulate) to resume with. A step keeps the run's rows, whatever devices share the step.

    lengths: tokens of each training row, (N). Raises UserError as `check_steps`.
    """
    check_steps(file, record, hardware)
    step, world = step_of(record), record["world"]
    accumulate = hardware.accumulate
    if step != hardware.step:
        parts = (-(-step.most(length) // (hardware.world * hardware.most(length))) for length in set(lengths.tolist()))
        accumulate = max(parts)
    if (world, record["accumulate"]) != (hardware.world, accumulate):
        log.warning(
            "%s was written by %d processes × %d micro-batches and resumes with %d × %d: the same steps of %s, in the same "
            "order. Sums are rounded in another order, so the weights will not be equal bit for bit.",
            file, world, record["accumulate"], hardware.world, accumulate, step,
        )  # fmt: skip
    return step, accumulate


def warn_of_micro_batches(record: Mapping[str, Any], accumulate: int, world: int, names: Sequence[str]) -> None:
    """Log if a resumed fit compares other rows. names: of the losses that compare the rows of a micro-batch."""
    before, step = record["accumulate"], step_of(record)
    if isinstance(step, TokenSteps):
        key = f"hardware.tokens_per_batch={step.tokens}"
    else:
        key = f"hardware.batch_size={-(-step.rows // (before * world))}"
    if names and accumulate != before:
        log.warning(
            "losses %s compare the rows of a micro-batch. A step of %s now has %d micro-batches in place of %d, so the "
            "result is not what one run would give. %s keeps them.",
            ", ".join(names), step, accumulate, before, key,
        )  # fmt: skip


def read(file: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors are memory-mapped. Raises UserError if the file is damaged or no resumable checkpoint."""
    reason = damage(file)
    if reason:
        whole = [str(other) for other in file.parent.glob("*.ckpt") if other != file and not damage(other)]
        hint = f" Whole checkpoints in the folder: {', '.join(whole)}." if whole else ""
        raise UserError(f"{file} is damaged or no checkpoint ({reason}).{hint} Use resume=auto, or resume=false.")
    content = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
    if KEY not in content:
        raise UserError(f"{file} is not a checkpoint to resume from (best.ckpt holds weights alone). Use resume=auto.")
    return content


def name_states(state: dict[str, Any], module: nn.Module, groups: Sequence[Mapping[str, Any]], by_module: bool) -> None:
    """Replace the numbers in an optimizer's state with parameter names.

    by_module: the numbers follow module.parameters(), as under FSDP; otherwise the order of the groups.
    """
    if not state:  # this rank does not write
        return
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    order = list(names.values()) if by_module else [names[id(p)] for group in groups for p in group["params"]]
    state["state"] = {order[number]: value for number, value in state["state"].items()}
    for group in state["param_groups"]:
        group["params"] = [order[number] for number in group["params"]]
