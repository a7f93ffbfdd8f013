"""A lock between processes, for work that one run does for many: fine-tuning a teacher, filling a store."""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
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
