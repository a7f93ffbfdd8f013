"""Room on the disk: asked for before an export, and told where it ran out all the same."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from mangakd.core.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


def check_room(parameters: int, out: Path, variants: int) -> None:
    """Of a student in fp32: twice for what variants are made of, at most once for each of them, and once for the best."""
    need, free = 4 * parameters * (variants + 3), shutil.disk_usage(out).free
    if free < need:
        raise UserError(
            f"an export of {variants} variants needs up to {need / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {out}: "
            "make room, choose another folder, or make fewer variants."
        )


@contextlib.contextmanager
def told_when_full(out: Path, parameters: int = 0) -> Iterator[None]:
    """Raises UserError for what fails within because the disk of `out` is full.

    parameters: of what is written in fp32. OpenVINO's writer says `iostream error`, and takes back what it has written: such
    an error is put down to the disk where that would not have fitted.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) not in FULL and shutil.disk_usage(out).free >= 4 * parameters:
            raise
        raise UserError(
            f"the disk of {out} is full; what was being written is gone, variants that were finished are whole. Make room and "
            "export again: it goes on with what is missing."
        ) from error
