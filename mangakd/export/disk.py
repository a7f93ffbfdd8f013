"""The folder and the disk space of an export: checked before it, and explained if the disk becomes full nevertheless."""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mangakd.core.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


def make_folder(out: Path) -> None:
    """Make the folder of an export. Raises UserError where none can be written, before work is done that would be lost."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(
            f"the export's folder {out} cannot be written: {error.strerror}. Give a folder of yours: out=<folder>."
        ) from error


def check_space(parameters: int, out: Path, variants: int) -> None:
    """Raises UserError for too little space. In units of the fp32 student: 2 for base files, 1 a variant at most, 1 for best."""
    needed, free = 4 * parameters * (variants + 3), shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"an export of {variants} variants needs up to {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {out}: "
            "free disk space, choose another folder, or export fewer variants."
        )


@contextlib.contextmanager
def explain_full_disk(out: Path, parameters: int = 0) -> Iterator[None]:
    """Context that raises UserError for a failure that a full disk of `out` caused.

    parameters: of the fp32 model that is written. OpenVINO's writer raises `iostream error` and removes its partial file. Such
    an error counts as a full disk if the model would not fit in the free space.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) not in FULL and shutil.disk_usage(out).free >= 4 * parameters:
            raise
        raise UserError(
            f"the disk of {out} is full. The partial variant is removed, and finished variants are whole. Free disk space and "
            "export again: only the missing variants are made."
        ) from error
