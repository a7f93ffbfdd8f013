"""Files that survive a kill, and the lock that keeps a second writer out.

A rename is atomic on POSIX, so a reader sees the whole file or none; the two fsyncs (content, then folder) make that
true after a power cut too. `flock` belongs to the process and not to a file's existence: no stale lock after SIGKILL.
Source: mangakd design, the store of teacher outputs.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mangakd.core.errors import UserError
from mangakd.core.files import sync_folder

LOCK = "writer.lock"


def sha256(path: Path) -> str:
    """Hex digest of the file's bytes. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Let `write` fill a temporary file, then hash it, fsync it and rename it to `path`. Returns the hex digest.

    The temporary name is fixed, so that what a killed writer left behind is overwritten by the one that resumes.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        digest = sha256(temporary)
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
    return digest


def write_text(path: Path, text: str) -> None:
    """Write a file that others may read at any time: they see the whole text, the one before, or no file."""
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogatepass")))


def append_line(path: Path, line: str) -> None:
    """Add one line to an existing file and fsync it; a kill leaves at most a truncated last line."""
    with path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises UserError naming the store and the holder's pid when another writer has it."""
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"the store {folder} is being written by another process (pid {holder}). Wait until it ends, stop it, "
                "or choose another folder with `teacher.store`."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            # Explicit, because a forked child shares this lock: closing our copy alone would leave it held.
            fcntl.flock(file, fcntl.LOCK_UN)
