"""Who works on a ledger: processes, each with a lease, so that the requests of one that is gone are asked by another.

A lease is renewed while its process lives. The requests of a process are free again when its lease has run out, or at once when
it ran on this machine and is gone.
"""

import functools
import os
import secrets
import socket
import sqlite3
import time
from pathlib import Path

LEASE = 60.0  # seconds; renewed after a quarter
SCHEMA = """
CREATE TABLE IF NOT EXISTS owners (
    owner TEXT PRIMARY KEY,   -- of one command
    place TEXT NOT NULL,      -- machine, its boot and its process namespace
    pid INTEGER NOT NULL,
    started TEXT NOT NULL,    -- start of the process in ticks: a number of a process is used again
    lease REAL NOT NULL       -- until when the owner's requests are its own, in seconds since 1970
) STRICT;
"""


class Owner:
    """This process, for one command. lease: seconds."""

    def __init__(self, lease: float = LEASE) -> None:
        self.name, self.lease = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}", lease

    def renew(self, connection: sqlite3.Connection) -> None:
        """Within a transaction of the caller."""
        pid = os.getpid()
        row = (self.name, _place(), pid, _started(pid), time.time() + self.lease)
        connection.execute(
            "INSERT INTO owners VALUES (?, ?, ?, ?, ?) ON CONFLICT (owner) DO UPDATE SET lease = excluded.lease", row
        )

    def gone(self, connection: sqlite3.Connection) -> list[str]:
        """Other owners whose requests are free."""
        rows = connection.execute("SELECT owner, place, pid, started, lease FROM owners").fetchall()
        return [row[0] for row in rows if row[0] != self.name and not _lives(*row[1:])]

    def leave(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM owners WHERE owner = ?", (self.name,))


def _lives(place: str, pid: int, started: str, lease: float) -> bool:
    if lease < time.time():
        return False
    return place != _place() or _started(pid) == started


@functools.cache
def _place() -> str:
    """A number of a process means something only within one boot and one process namespace, such as a container's."""
    parts = [socket.gethostname()]
    try:
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    except OSError:
        parts.append("-")
    return " ".join(parts)


def _started(pid: int) -> str:
    """The start of a process in ticks; "" where the system does not say, "gone" for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _exists(pid)
    return "gone" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        return ""
    return ""
