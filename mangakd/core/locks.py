"""A lock between processes, for work that one run does for many: fine-tuning a teacher, filling a store, converting a model."""

import contextlib
import fcntl
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def waiting_lock(file: Path, doing: str) -> Iterator[None]:
    """Hold the lock of `file`. A second process logs that it waits, and waits. The lock ends with its process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:  # lockf, because a forked process inherits a flock, which then outlives a killed parent
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another run that is %s (%s)", doing, file)
            fcntl.lockf(handle, fcntl.LOCK_EX)
        yield


def made_once(folder: Path, doing: str, make: Callable[[Path], None]) -> Path:
    """The folder, which `make` fills under another name where it is not there yet; so a folder of this name is always whole."""
    with waiting_lock(folder.parent / "locks" / folder.name, doing):
        if not folder.is_dir():
            scratch = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            make(scratch)
            scratch.rename(folder)
    return folder
