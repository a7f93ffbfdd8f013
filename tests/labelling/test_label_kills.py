"""Two workers on one ledger against a server that does wrong, with SIGKILL again and again: nothing is lost or paid twice."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO

WORKER = Path(__file__).with_name("asking.py")
PROMPTS, KILLS = 1000, 10
FAULTS = {
    "429": 0.02, "429_after": 0.02, "500": 0.02, "529": 0.02, "hang": 0.003, "reset": 0.01,
    "cut": 0.01, "truncated": 0.01, "drip": 0.01, "reset_after": 0.01, "wrong_usage": 0.01, "no_usage": 0.01,
}  # fmt: skip


def start(options: dict[str, Any]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(WORKER), json.dumps(options)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def count(ledger: Path, sql: str) -> Any:
    connection = sqlite3.connect(ledger, timeout=60)
    try:
        return connection.execute(sql).fetchone()[0]
    finally:
        connection.close()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_nothing_is_lost_or_paid_twice(provider: str, serve: Callable[..., Any], tmp_path: Path) -> None:
    server, ledger = serve(faults=FAULTS, latency=0.02), tmp_path / "ledger.sqlite"
    options = {
        "provider": provider, "base_url": server.base_url(provider), "prompts": PROMPTS, "ledger": str(ledger),
        "concurrency": 8, "timeout": 2.0, "attempts": 20,
    }  # fmt: skip
    chance, workers, kills = random.Random(0), [start(options), start(options)], 0
    while kills < KILLS:
        goal = (kills + 1) * PROMPTS * 3 // (4 * KILLS)
        _wait(lambda goal=goal: ledger.exists() and _answers(ledger) >= goal)
        time.sleep(chance.uniform(0, 0.2))
        victim = workers.pop(0)
        assert victim.poll() is None, "a worker ended before its kill"
        victim.kill()
        assert victim.wait() == -9
        kills += 1
        workers.append(start(options))
    memory = [int(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]

    bill = server.bill
    assert bill["paid_twice"] == 0 and len(bill["bill"]) == PROMPTS
    assert {name for name, share in FAULTS.items() if share > 0.005} <= {*bill["counts"]} and bill["counts"][
        "replayed"
    ] > 0
    assert count(ledger, "SELECT count(*) FROM requests WHERE state = 'answered' AND owner IS NULL") == PROMPTS
    assert count(ledger, "SELECT count(*) FROM replies") == PROMPTS
    rows = _rows(ledger)
    assert rows.keys() == bill["bill"].keys()
    for key, (tokens_in, tokens_out, cost, estimated) in rows.items():
        each = bill["bill"][key]
        assert estimated == (not each["usage"])
        if not estimated:
            assert (tokens_in, tokens_out) == (each["in"], each["out"])
            assert cost == pytest.approx((each["in"] + 2 * each["out"]) / 1e6)
    certain = sum((each["in"] + 2 * each["out"]) / 1e6 for each in bill["bill"].values() if each["usage"])
    assert count(ledger, "SELECT total(cost) FROM requests WHERE NOT estimated") == pytest.approx(certain)
    # Each request that came to the server is an attempt of the ledger: none was sent before it was on the disk.
    assert count(ledger, "SELECT sum(attempts) FROM requests") >= bill["counts"]["requests"]
    assert count(ledger, "SELECT sum(uncertain) FROM requests") >= bill["counts"]["replayed"]
    assert max(memory) < 130_000  # kB; the client alone takes 80,000


def _rows(ledger: Path) -> dict[str, tuple[int, int, float, int]]:
    connection = sqlite3.connect(ledger)
    rows = connection.execute("SELECT key, tokens_in, tokens_out, cost, estimated FROM requests").fetchall()
    connection.close()
    return {key: tuple(rest) for key, *rest in rows}  # type: ignore[misc]


def _answers(ledger: Path) -> int:
    try:
        return int(count(ledger, "SELECT count(*) FROM requests WHERE state = 'answered'"))
    except sqlite3.OperationalError:  # the first worker makes its tables
        return 0


def _wait(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < end, "the workers do not go on"
        time.sleep(0.02)
