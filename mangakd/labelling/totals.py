"""Sums over the rows of a ledger: for progress, for messages and for the manifest of a file of answers."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mangakd.labelling.ledger import Ledger


@dataclass(frozen=True)
class Totals:
    """requests: different ones. refused: among the answers. uncertain: attempts that may have been paid for without an answer.

    cost: of the answers; None where the price of one is unknown. cost_uncertain: of the uncertain attempts at most. estimated:
    answers whose tokens the provider has not counted, or not possibly. latency: mean, in seconds.
    first, last: times of answers, in seconds since 1970; None without an answer.
    """

    requests: int
    answers: int
    refused: int
    failed: int
    asked: int
    uncertain: int
    estimated: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost: float | None
    cost_uncertain: float | None
    latency: float | None
    first: float | None
    last: float | None

    @property
    def open(self) -> int:
        return self.requests - self.answers - self.failed


_QUERY = """
SELECT count(*), total(state = 'answered'), total(state = 'answered' AND refused), total(state = 'failed'),
    total(state = 'asked'), total(uncertain), total(estimated), total(tokens_in), total(tokens_cached), total(tokens_out),
    CASE WHEN total(state = 'answered' AND cost IS NULL) = 0 THEN total(cost) END,
    CASE WHEN total(uncertain > 0 AND estimate IS NULL) = 0 THEN total(uncertain * estimate) END,
    avg(latency), min(CASE WHEN state = 'answered' THEN answered_at END), max(CASE WHEN state = 'answered' THEN answered_at END)
FROM requests
"""


def totals(ledger: Ledger, job: bool = True) -> Totals:
    """job: of the requests of the job alone, each once; else of all rows."""
    values = ledger.query(_QUERY + ("WHERE key IN (SELECT key FROM job)" if job else ""))[0]
    return Totals(*map(int, values[:10]), *values[10:])  # type: ignore[arg-type]


def manifest_entry(ledger: Ledger, file: Path, out: Path, currency: str) -> dict[str, Any]:
    """What `<out>.label.json` says of the ledger, of the requests of this file alone."""
    each = totals(ledger)
    names = (
        "requests",
        "answers",
        "refused",
        "failed",
        "uncertain",
        "tokens_in",
        "tokens_out",
        "cost",
        "cost_uncertain",
    )
    times = {name: _time(getattr(each, name)) for name in ("first", "last")}
    path = file.name if file.resolve().parent == out.resolve().parent else os.fspath(file)
    return {"path": path, **{name: getattr(each, name) for name in names}, "currency": currency, **times}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
