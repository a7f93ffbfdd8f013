"""A lock between processes, for work that many runs share and one does: fine-tuning a teacher, filling a store."""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def waiting_lock(file: Path, doing: str) -> Iterator[None]:
    """Holds the lock of `file`; whoever comes second says what it waits for, and waits. It ends with the process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:  # lockf, as flock would pass to a process that is forked meanwhile, and outlive a killed process in it
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another run that is %s (%s)", doing, file)
            fcntl.lockf(handle, fcntl.LOCK_EX)
        yield
