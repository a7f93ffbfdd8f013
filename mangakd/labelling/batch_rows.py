"""Batches in a ledger: which requests are part of which, so that none is submitted twice, whenever its process dies.

A batch is `planned` with its requests before the provider hears of it, `submitted` once its id is known, and `done` when its
results are in the ledger. A planned batch of a process that is gone is looked for at the provider by its name or its requests.
"""

import hashlib
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mangakd.labelling.ledger import Ledger, Outcome

Row = tuple[str, str]  # key, body


@dataclass(frozen=True)
class Batch:
    """name: ours. id: the provider's, None while it is not known. created: when it was planned, in seconds since 1970."""

    name: str
    id: str | None
    created: float


class BatchRows:
    """The batches of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def plan(self, keys: Sequence[str]) -> Batch:
        """A batch of requests that this owner has taken. Before it is created."""
        now = time.time()
        name = hashlib.sha256("\n".join([repr(now), *keys]).encode()).hexdigest()[:32]
        with self._ledger.transaction() as connection:
            connection.execute(
                "INSERT INTO batches (batch, state, owner, created) VALUES (?, 'planned', ?, ?)",
                (name, self._ledger.owner.name, now),
            )
            connection.executemany(
                "UPDATE requests SET state = 'asked', batch = ?, owner = NULL, attempts = attempts + 1, asked_at = ? "
                "WHERE key = ? AND owner = ?", [(name, now, key, self._ledger.owner.name) for key in keys]
            )  # fmt: skip
        return Batch(name, None, now)

    def submitted(self, batch: Batch, identity: str) -> None:
        with self._ledger.transaction() as connection:
            connection.execute(
                "UPDATE batches SET state = 'submitted', id = ?, owner = NULL WHERE batch = ?", (identity, batch.name)
            )

    def unknown(self) -> list[Batch]:
        """Planned batches of this owner, and those of owners that are gone, which become this owner's."""
        owner = self._ledger.owner
        with self._ledger.transaction() as connection:
            owner.renew(connection)
            self._ledger.release_gone(connection)
            rows = connection.execute(
                "SELECT batch, created FROM batches WHERE state = 'planned' "
                "AND (owner = ? OR owner NOT IN (SELECT owner FROM owners))", (owner.name,)
            ).fetchall()  # fmt: skip
            connection.executemany(
                "UPDATE batches SET owner = ? WHERE batch = ?", [(owner.name, name) for name, _ in rows]
            )
        return [Batch(name, None, created) for name, created in rows]

    def open(self) -> list[Batch]:
        """Submitted batches with requests of the job."""
        rows = self._ledger.query(
            "SELECT batch, id, created FROM batches WHERE state = 'submitted' AND batch IN "
            "(SELECT batch FROM requests WHERE state = 'asked' AND key IN (SELECT key FROM job))"
        )
        return [Batch(*row) for row in rows]

    def known(self) -> set[str]:
        return {identity for (identity,) in self._ledger.query("SELECT id FROM batches WHERE id IS NOT NULL")}

    def keys(self, batch: Batch) -> set[str]:
        return {key for (key,) in self._ledger.query("SELECT key FROM requests WHERE batch = ?", (batch.name,))}

    def record(self, connection: sqlite3.Connection, batch: Batch, key: str, outcome: Outcome) -> None:
        """Within a transaction of the caller. Another process may have recorded the same result before."""
        if self._asked(connection, batch, key):
            self._ledger.record(connection, key, outcome)

    def failed(
        self, connection: sqlite3.Connection, batch: Batch, key: str, error: str, last: bool, final: bool
    ) -> None:
        """A result without an answer. last: not submitted again by this command. final: the provider has rejected it."""
        if self._asked(connection, batch, key):
            state = "failed" if last or final else "waiting"
            connection.execute(
                "UPDATE requests SET state = ?, error = ?, final = ?, batch = NULL WHERE key = ?",
                (state, error, final, key),
            )

    def end(self, batch: Batch) -> None:
        """The batch does not exist: its requests wait again."""
        with self._ledger.transaction() as connection:
            self.finish(connection, batch)

    def finish(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Within the caller's transaction of its last results: the batch is done. Its requests without a result wait again."""
        connection.execute(
            "UPDATE requests SET state = 'waiting', batch = NULL WHERE batch = ? AND state = 'asked'", (batch.name,)
        )
        connection.execute("UPDATE batches SET state = 'done', owner = NULL WHERE batch = ?", (batch.name,))

    def attempts(self, key: str) -> int:
        return int(self._ledger.query("SELECT attempts FROM requests WHERE key = ?", (key,))[0][0])

    def _asked(self, connection: sqlite3.Connection, batch: Batch, key: str) -> bool:
        query = "SELECT 1 FROM requests WHERE key = ? AND batch = ? AND state = 'asked'"
        return connection.execute(query, (key, batch.name)).fetchone() is not None
