"""`Ledger`: each request to an API with its answer, tokens and cost, in SQLite. What was paid for is never lost.

A row's key is a hash of provider, model and the body that is sent, and of the seed where an answer is drawn. A row is `waiting`,
then `asked` from before its request leaves until an answer or an error is on the disk, then `answered` or `failed`. A request
that was `asked` when its process died may have been paid for: it is asked again with the same idempotency key, and its estimated
cost is counted as uncertain. Totals are sums over rows; there is no counter that could drift.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.labelling import owners
from mangakd.labelling.owners import Owner

VERSION = 1
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY,
    provider TEXT NOT NULL, model TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'asked', 'answered', 'failed')),
    owner TEXT,                               -- who asks it (owners); null: nobody
    batch TEXT,                               -- the batch that it is part of (batches)
    attempts INTEGER NOT NULL DEFAULT 0,      -- how often it was sent
    uncertain INTEGER NOT NULL DEFAULT 0,     -- attempts that may have been paid for without an answer
    estimate REAL,                            -- cost of one attempt at most; null: price unknown
    tokens_in INTEGER NOT NULL DEFAULT 0, tokens_cached INTEGER NOT NULL DEFAULT 0, tokens_out INTEGER NOT NULL DEFAULT 0,
    estimated INTEGER NOT NULL DEFAULT 0,     -- 1: the provider's token counts were missing or impossible
    cost REAL,                                -- of all its answers; null: price unknown, or no answer
    latency REAL,                             -- seconds of the attempt that was answered
    finish TEXT, refused INTEGER NOT NULL DEFAULT 0,
    error TEXT, final INTEGER NOT NULL DEFAULT 0,   -- of a failed row, 1: the provider has rejected this very request
    created REAL NOT NULL, asked_at REAL, answered_at REAL,
    size INTEGER NOT NULL                     -- of the body in bytes
) STRICT;
CREATE INDEX IF NOT EXISTS open_requests ON requests (owner) WHERE owner IS NOT NULL;
CREATE INDEX IF NOT EXISTS batch_requests ON requests (batch) WHERE batch IS NOT NULL;
CREATE INDEX IF NOT EXISTS free_requests ON requests (created)
    WHERE state = 'waiting' AND owner IS NULL AND batch IS NULL;
CREATE TABLE IF NOT EXISTS bodies (key TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batches (
    batch TEXT PRIMARY KEY,    -- our name, from the keys in it
    id TEXT,                   -- the provider's; null: not known to be created
    state TEXT NOT NULL CHECK (state IN ('planned', 'submitted', 'done')),
    owner TEXT,                -- who has planned it and will submit it
    created REAL NOT NULL
) STRICT;
{owners.SCHEMA}
CREATE TEMP TABLE job (place INTEGER PRIMARY KEY, key TEXT NOT NULL);
CREATE INDEX temp.job_keys ON job (key);
"""


@dataclass(frozen=True)
class Asking:
    """One request as it is planned. estimate: its cost at most, None where the price is unknown."""

    key: str
    body: str
    estimate: float | None


@dataclass(frozen=True)
class Outcome:
    """An answer as it is recorded. reply: the raw JSON text. cost: None where the price is unknown."""

    reply: str
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    estimated: bool
    cost: float | None
    latency: float
    finish: str
    refused: bool


class Ledger:
    """file: of the ledger; it is made. A connection belongs to the thread that uses it: open one Ledger in each.

    Raises UserError for a file that is no ledger.
    """

    def __init__(self, file: Path, owner: Owner | None = None) -> None:
        self.file, self.owner = file, owner or Owner()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            tables = {
                name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            if (version or tables) and version != VERSION:
                raise UserError(f"ledger={file} is no ledger of this version of mangakd. Give another file: ledger=….")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except sqlite3.DatabaseError as error:
            raise UserError(f"ledger={file} cannot be opened: {error}. Give another file: ledger=….") from error

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, which other processes wait for; on the disk when it ends."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def plan(self, requests: Iterable[Asking], provider: str, model: str, again: bool = False) -> None:
        """Make rows of the requests of a job, in its order. Rows that exist stay.

        A failed row waits again, unless the provider has rejected the request itself; again: then too.
        """
        now = time.time()
        with self.transaction() as connection:
            connection.execute("DELETE FROM job")
            for place, each in enumerate(requests):
                connection.execute("INSERT INTO job VALUES (?, ?)", (place, each.key))
                row = (each.key, provider, model, each.estimate, now, len(each.body.encode()))
                new = connection.execute(
                    "INSERT INTO requests (key, provider, model, state, estimate, created, size) "
                    "VALUES (?, ?, ?, 'waiting', ?, ?, ?) ON CONFLICT DO NOTHING", row
                ).rowcount  # fmt: skip
                if new:
                    connection.execute("INSERT INTO bodies VALUES (?, ?)", (each.key, each.body))
                else:  # a price may have been learnt since
                    connection.execute(
                        "UPDATE requests SET estimate = ? WHERE key = ? AND state != 'answered'",
                        (each.estimate, each.key),
                    )
            connection.execute(
                "UPDATE requests SET state = 'waiting', error = NULL, final = 0 "
                "WHERE state = 'failed' AND (final = 0 OR ?) AND key IN (SELECT key FROM job)", (again,)
            )  # fmt: skip

    def take(self, count: int, max_cost: float | None = None) -> list[tuple[str, str, float | None]]:
        """Up to `count` requests of the job that nobody asks, now this owner's: key, body, estimate.

        max_cost: the requests taken fit into it, with all that the ledger's rows have cost, may have cost, or may cost at most
        while they are asked, by whichever process. Fewer are taken then, or none.
        """
        with self.transaction() as connection:
            self.release_gone(connection)
            self.owner.renew(connection)
            room = float("inf") if max_cost is None else max_cost - self._bound(connection)
            rows = connection.execute(
                "SELECT key, body, estimate FROM requests JOIN bodies USING (key) WHERE state = 'waiting' AND owner IS NULL "
                "AND batch IS NULL AND EXISTS (SELECT 1 FROM job WHERE job.key = requests.key) "
                "ORDER BY created, requests.rowid LIMIT ?", (count,)
            ).fetchall()  # fmt: skip
            chosen = []
            for key, body, estimate in rows:
                if (room := room - (estimate or 0.0)) < 0:
                    break
                chosen.append((key, body, estimate))
            connection.executemany(
                "UPDATE requests SET owner = ? WHERE key = ?", [(self.owner.name, key) for key, _, _ in chosen]
            )
        return chosen

    def release_gone(self, connection: sqlite3.Connection) -> None:
        """Free the requests of owners that are gone. What they had asked is uncertain."""
        for gone in self.owner.gone(connection):
            connection.execute(
                "UPDATE requests SET owner = NULL, uncertain = uncertain + (state = 'asked'), state = 'waiting' "
                "WHERE owner = ? AND batch IS NULL AND state IN ('waiting', 'asked')", (gone,)
            )  # fmt: skip
            connection.execute("UPDATE requests SET owner = NULL WHERE owner = ?", (gone,))
            connection.execute("DELETE FROM owners WHERE owner = ?", (gone,))

    def _bound(self, connection: sqlite3.Connection) -> float:
        """What the rows have cost, may have cost without an answer, and may cost while they are asked."""
        query = (
            "SELECT total(cost) + total(uncertain * coalesce(estimate, 0)) FROM requests "
            "UNION ALL SELECT total(estimate) FROM requests "
            "WHERE owner IS NOT NULL OR (batch IS NOT NULL AND state = 'asked')"
        )
        return sum(value for (value,) in connection.execute(query))

    # What an owner writes about its requests, within a transaction of the caller:

    def mark_asked(self, connection: sqlite3.Connection, key: str) -> None:
        """Before the request leaves."""
        connection.execute(
            "UPDATE requests SET state = 'asked', attempts = attempts + 1, asked_at = ? WHERE key = ? AND owner = ?",
            (time.time(), key, self.owner.name),
        )

    def mark_unsent(self, connection: sqlite3.Connection, key: str) -> None:
        """Of a request that was to leave and did not."""
        connection.execute(
            "UPDATE requests SET state = 'waiting', attempts = attempts - 1 WHERE key = ? AND owner = ?",
            (key, self.owner.name),
        )

    def mark_tried(self, connection: sqlite3.Connection, key: str, error: str, uncertain: bool) -> None:
        """After an attempt that is made again."""
        connection.execute(
            "UPDATE requests SET state = 'waiting', error = ?, uncertain = uncertain + ? WHERE key = ? AND owner = ?",
            (error, uncertain, key, self.owner.name),
        )

    def mark_failed(self, connection: sqlite3.Connection, key: str, error: str, uncertain: bool, final: bool) -> None:
        connection.execute(
            "UPDATE requests SET state = 'failed', error = ?, uncertain = uncertain + ?, final = ?, owner = NULL, "
            "answered_at = ? WHERE key = ? AND state != 'answered'", (error, uncertain, final, time.time(), key)
        )  # fmt: skip

    def record(self, connection: sqlite3.Connection, key: str, outcome: Outcome) -> None:
        """An answer. The first one of a request stays; what a second one has cost is added to the row."""
        connection.execute("INSERT INTO replies VALUES (?, ?) ON CONFLICT DO NOTHING", (key, outcome.reply))
        connection.execute(_RECORD, {**vars(outcome), "now": time.time(), "key": key})

    def free(self, keys: Sequence[str]) -> None:
        """Requests that were taken and are not needed."""
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE requests SET owner = NULL WHERE key = ? AND owner = ? AND state = 'waiting'",
                [(key, self.owner.name) for key in keys],
            )

    def leave(self) -> None:
        """At the end of a command: what it has taken and not asked is free. What it has asked is uncertain."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE requests SET owner = NULL, uncertain = uncertain + (state = 'asked'), state = 'waiting' "
                "WHERE owner = ? AND state IN ('waiting', 'asked') AND batch IS NULL", (self.owner.name,)
            )  # fmt: skip
            self.owner.leave(connection)

    def replies(self, chunk: int = 256) -> Iterator[list[tuple[str, str, str | None]]]:
        """(key, state, raw reply or None) of the job's requests in its order, `chunk` at a time."""
        for start in range(0, self.size(), chunk):
            yield self._connection.execute(
                "SELECT job.key, state, reply FROM job JOIN requests USING (key) LEFT JOIN replies USING (key) "
                "WHERE place >= ? AND place < ? ORDER BY place", (start, start + chunk)
            ).fetchall()  # fmt: skip

    def size(self) -> int:
        """The requests of the job, equal ones counted each time."""
        return int(self._connection.execute("SELECT count(*) FROM job").fetchone()[0])

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()


_RECORD = """
UPDATE requests SET state = 'answered', owner = NULL, error = NULL,
    tokens_in = tokens_in + :tokens_in, tokens_cached = tokens_cached + :tokens_cached, tokens_out = tokens_out + :tokens_out,
    estimated = max(estimated, :estimated), cost = CASE WHEN :cost IS NULL THEN cost ELSE coalesce(cost, 0) + :cost END,
    latency = coalesce(latency, :latency), finish = coalesce(finish, :finish), refused = max(refused, :refused),
    answered_at = coalesce(answered_at, :now)
WHERE key = :key
"""
