"""Batch APIs: what fails is submitted again, and kills at any moment submit nothing twice."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from injecting import Injecting
from test_asking import GREEDY, api_of, questions
from test_label_kills import count, start

from mangakd.core.errors import UserError
from mangakd.labelling.batch_rows import BatchRows
from mangakd.labelling.totals import totals

Serve = Callable[..., Injecting]
PROMPTS, KILLS = 240, 10


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_batch_job_is_killed_again_and_again(provider: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(batch_latency=0.3, batch_seconds=0.6, row_errors=0.1, row_expires=0.1)
    ledger, chance = tmp_path / "ledger.sqlite", random.Random(1)
    options = {
        "provider": provider, "base_url": server.base_url(provider), "prompts": PROMPTS, "ledger": str(ledger), "batch": True,
        "batch_poll": 0.4, "batch_rows": 20, "attempts": 30,
    }  # fmt: skip
    kills = 0
    while kills < KILLS:
        submissions = server.bill["batches"]
        worker, end = start(options), time.monotonic() + 60
        while server.bill["batches"] == submissions and worker.poll() is None and kills % 2 == 0:
            assert time.monotonic() < end
            time.sleep(0.02)
        # Even kills come while the reply about a new batch is on its way, the others at any moment.
        time.sleep(chance.uniform(0, 0.25) if kills % 2 == 0 else chance.uniform(0.5, 2.0))
        if worker.poll() is not None:
            break
        worker.kill()
        assert worker.wait() == -9
        kills += 1
    worker = start(options)
    worker.communicate(timeout=120)
    assert worker.returncode == 0 and kills == KILLS
    bill = server.bill
    assert bill["paid_twice"] == 0 and len(bill["bill"]) == PROMPTS and bill["counts"]["row_failures"] > 0
    assert count(ledger, "SELECT count(*) FROM requests WHERE state = 'answered' AND owner IS NULL") == PROMPTS
    cost = sum((each["in"] + 2 * each["out"]) / 2e6 for each in bill["bill"].values())
    assert count(ledger, "SELECT total(cost) FROM requests") == pytest.approx(cost)
    assert count(ledger, "SELECT count(*) FROM batches WHERE state != 'done'") == 0
    assert count(ledger, "SELECT count(*) FROM batches WHERE id IS NOT NULL") == bill["batches"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_limits_of_a_batch_and_rows_that_are_rejected(
    provider: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, requests = serve(batch_seconds=0.0), [*questions(25), *questions(1, "REJECT")]
    api = api_of(server, provider, batch=True, batch_poll=0.05, batch_rows=10)
    with api.opened(requests, GREEDY, tmp_path / "l.sqlite") as ledger:
        assert api.ask(ledger, GREEDY) is None
        each = totals(ledger)
    assert (each.answers, each.failed) == (25, 1) and server.bill["batches"] == 3
    for name in ("OpenAIBatches", "AnthropicBatches"):
        monkeypatch.setattr(f"mangakd.labelling.api.batch_wire.{name}.bytes", 1500)
    with api.opened(questions(12, "new"), GREEDY, tmp_path / "other.sqlite") as ledger:
        assert api.ask(ledger, GREEDY) is None
        sizes = [size for (size,) in ledger.query("SELECT sum(size + 200) FROM requests GROUP BY batch")]
    assert sum(sizes) > 3000 and max(sizes) <= 1500 and len(sizes) == server.bill["batches"] - 3


def test_max_cost_holds_for_batches_and_bedrock_has_none(serve: Serve, tmp_path: Path) -> None:
    server, file = serve(batch_seconds=0.0), tmp_path / "l.sqlite"
    api = api_of(server, batch=True, batch_poll=0.05, max_cost=3e-4)
    with api.opened(questions(50), GREEDY, file) as ledger:
        halt = api.ask(ledger, GREEDY)
        each = totals(ledger)
        most = ledger.query("SELECT max(estimate) FROM requests")[0][0]
    assert halt is not None and "max_cost" in halt.reason and each.cost is not None
    assert 3e-4 - most < each.cost <= 3e-4 and each.answers == len(server.bill["bill"]) < 50
    bedrock = api_of(server, "bedrock", region="r", batch=True)
    with bedrock.opened(questions(1), GREEDY, file) as ledger, pytest.raises(UserError, match="bedrock has no batches"):
        bedrock.ask(ledger, GREEDY)


def test_a_batch_is_done_in_the_transaction_of_its_last_result(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at that moment, it has all its answers and is done, or neither."""
    api, file = api_of(serve(batch_seconds=0.0), batch=True, batch_poll=0.05), tmp_path / "l.sqlite"
    finish = BatchRows.finish

    def killed(self: BatchRows, connection: Any, batch: Any) -> None:
        monkeypatch.setattr(BatchRows, "finish", finish)
        raise KeyboardInterrupt

    monkeypatch.setattr(BatchRows, "finish", killed)
    with api.opened(questions(3), GREEDY, file) as ledger:
        with pytest.raises(KeyboardInterrupt):
            api.ask(ledger, GREEDY)
        assert ledger.query("SELECT state FROM batches") == [("submitted",)] and totals(ledger).answers == 0
        assert api.ask(ledger, GREEDY) is None
        assert ledger.query("SELECT state FROM batches") == [("done",)] and totals(ledger).answers == 3
