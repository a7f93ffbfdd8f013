"""Checkpoints that a kill at any moment cannot spoil, and that say what they belong to.

Written aside, flushed to the disk, renamed; `last.ckpt` moves to `last-previous.ckpt` in between, so that one whole file is
there at every moment. A file is whole when its zip directory is there and every record has its CRC-32, which torch.save
writes. Optimizer states are stored under parameter names: Lightning numbers them by group without sharding and by module with
it, and would load one as the other, into the wrong parameters.
"""

import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from mangakd.core.errors import UserError
from mangakd.core.files import sync_folder
from mangakd.training.hardware import Hardware

log = logging.getLogger(__name__)
LAST, PREVIOUS = "last.ckpt", "last-previous.ckpt"
KEY = "mangakd"  # of what we add to Lightning's checkpoint


class AtomicIO(TorchCheckpointIO):
    """Raises UserError when the disk is full or the folder is gone; what was there before stays."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_name(f"{file.name}.writing")
        try:
            with scratch.open("wb") as handle:
                torch.save(checkpoint, handle)
                handle.flush()
                os.fsync(handle.fileno())
        except (OSError, RuntimeError) as error:  # torch tells of a full disk as a RuntimeError
            scratch.unlink(missing_ok=True)
            raise UserError(
                f"the checkpoint {file} could not be written: {str(error).splitlines()[0]}. The one before it is kept. Free "
                "some disk and go on with resume=auto."
            ) from error
        if file.name == LAST and file.exists():
            file.replace(file.with_name(PREVIOUS))
        scratch.replace(file)
        sync_folder(file.parent)


def damage(file: Path) -> str:
    """What is wrong with a checkpoint's bytes; empty for a whole one."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return str(error)
    return f"{broken} has another checksum" if broken else ""


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a fit's folder, None where none was written.

    Says so where it is not the last one. Raises UserError when all are damaged.
    """
    files = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for file in files:
        what = damage(file)
        if not what:
            return file
        log.warning(
            "%s is damaged (%s)%s.", file, what, "; going on from the one before it" if file.name == LAST else ""
        )
    if files:
        raise UserError(f"no whole checkpoint is left in {folder}. Delete that folder to start from the beginning.")
    return None


@dataclass(frozen=True)
class Identity:
    """What a run learns from. A checkpoint goes on only where all of it is the same; `settings` may differ, and are said.

    teacher: fingerprint, or None. data: digest of the rows that are trained and validated on. labels: names in the head's
    order. stage: which fit this is.
    """

    teacher: str | None = None
    data: str = ""
    labels: Sequence[str] = ()
    stage: str = ""
    settings: Mapping[str, Any] | None = None


WORDS = {"labels": "the label set", "data": "the data", "teacher": "the teacher", "stage": "the stage"}


def check_same(file: Path, found: Mapping[str, Any], now: Identity) -> None:
    """Raises UserError naming what differs; logs settings that do."""
    for name, words in WORDS.items():
        before, after = found.get(name), getattr(now, name)
        before, after = (tuple(x) if isinstance(x, list | tuple) else x for x in (before, after))
        if before != after:
            raise UserError(
                f"{file} was written with other inputs: {words} changed, from {_short(before)} to {_short(after)}. Go on with "
                "what it was written with, or start anew with resume=false and another hydra.run.dir."
            )
    before, after = found.get("settings") or {}, now.settings or {}
    changed = [f"{k} {before.get(k)} → {after.get(k)}" for k in {**before, **after} if before.get(k) != after.get(k)]
    if changed:
        log.warning("resumed with other settings, so not what one run would give: %s.", "; ".join(changed))


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def kept_step(file: Path, found: Mapping[str, Any], hardware: Hardware) -> tuple[int, int]:
    """(step_rows, accumulate) to resume with: the optimizer's step is the run's own, whatever devices share it."""
    rows, world = found["step_rows"], found["world"]
    accumulate = -(-rows // (hardware.world * hardware.batch_size))
    if rows == hardware.step_rows:
        accumulate = hardware.accumulate
    if (world, found["accumulate"]) != (hardware.world, accumulate):
        log.warning(
            "%s was written by %d processes × %d micro-batches and goes on with %d × %d: the same %d rows a step, the same "
            "order. Sums are rounded in another order, so the weights will not be equal bit for bit.",
            file, world, found["accumulate"], hardware.world, accumulate, rows,
        )  # fmt: skip
    return rows, accumulate


def read(file: Path) -> dict[str, Any]:
    """A checkpoint without reading its tensors yet. Raises UserError when it is none of ours."""
    what = damage(file)
    if what:
        whole = [str(other) for other in file.parent.glob("*.ckpt") if other != file and not damage(other)]
        hint = f" Whole ones beside it: {', '.join(whole)}." if whole else ""
        raise UserError(f"{file} is damaged or no checkpoint ({what}).{hint} Use resume=auto, or resume=false.")
    content = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
    if KEY not in content:
        raise UserError(f"{file} is not a checkpoint to resume from (best.ckpt holds weights alone). Use resume=auto.")
    return content


def name_states(state: dict[str, Any], module: nn.Module, groups: Sequence[Mapping[str, Any]], by_module: bool) -> None:
    """Puts parameter names in place of an optimizer state's numbers.

    by_module: numbered in the order of module.parameters(), as under FSDP; else in the order of the groups.
    """
    if not state:  # ranks that write nothing
        return
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    order = list(names.values()) if by_module else [names[id(p)] for group in groups for p in group["params"]]
    state["state"] = {order[number]: value for number, value in state["state"].items()}
    for group in state["param_groups"]:
        group["params"] = [order[number] for number in group["params"]]
