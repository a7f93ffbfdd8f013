"""Asking an API: budgets, errors that end a run, secrets, signals, dry runs, and what `label` writes, against a real server."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked_prompts import no_bar, prompts
from conftest import REPO
from injecting import SECRET, Injecting

from mangakd.core.errors import UserError
from mangakd.labelling.api import provider as providers
from mangakd.labelling.api.provider import Api
from mangakd.labelling.label import Options, dry_run, label
from mangakd.labelling.label_manifest import read_manifest
from mangakd.labelling.ledger import Ledger
from mangakd.labelling.provider import Request
from mangakd.labelling.totals import Totals, totals
from mangakd.models.sampling import Sampling

Serve = Callable[..., Injecting]
PRICE = {"input": 1.0, "output": 2.0}
GREEDY = Sampling(max_new_tokens=20)


def api_of(server: Injecting, provider: str = "openai", **options: Any) -> Api:
    make = getattr(providers, provider)
    settings = {"model": "m", "price": PRICE, "concurrency": 4, "timeout": 2.0, **options}
    return make(base_url=server.base_url(provider), **settings)  # type: ignore[no-any-return]


def questions(count: int, word: str = "prompt") -> list[Request]:
    return [Request((("user", f"{word} {i}"),), i) for i in range(count)]


def run(api: Api, requests: list[Request], file: Path) -> tuple[Any, Totals]:
    with api.opened(requests, GREEDY, file) as ledger:
        return api.ask(ledger, GREEDY), totals(ledger)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_label_writes_what_the_ledger_holds_and_asks_nothing_again(provider: str, serve: Serve, tmp_path: Path) -> None:
    server, out = serve(), tmp_path / "out" / "answers.jsonl"
    rows = prompts(tmp_path, [{"prompt": "one?"}, {"prompt": "FORBIDDEN"}, {"prompt": "REJECT"}, {"prompt": "one?"}])
    api, options = api_of(server, provider), Options(GREEDY)
    label(rows, api, options, out, tmp_path / "cache", no_bar, tmp_path / "prompts.jsonl")
    first, second = [json.loads(line) for line in out.read_text().splitlines()]
    assert first["answer"] == second["answer"] and first["answer"].startswith("answer ")
    assert (first["row"], second["row"], first["ended"]) == (1, 4, True)
    assert first["written_by"]["base_url"] == server.base_url(provider)
    ledger = (read_manifest(out) or {})["ledger"]
    assert ledger["path"] == "answers.jsonl.ledger.sqlite" and ledger["currency"] == "USD"
    assert [ledger[name] for name in ("requests", "answers", "refused", "failed", "uncertain")] == [3, 2, 1, 1, 0]
    bill = server.bill["bill"].values()
    assert len(bill) == 2 and ledger["tokens_in"] == sum(each["in"] for each in bill)
    assert ledger["cost"] == pytest.approx(sum(each["in"] + 2 * each["out"] for each in bill) / 1e6)
    before, count = out.read_bytes(), server.bill["counts"]["requests"]
    label(rows, api, options, out, tmp_path / "cache", no_bar, tmp_path / "prompts.jsonl")
    assert out.read_bytes() == before and server.bill["counts"]["requests"] == count
    unusable = [json.loads(line) for line in Path(f"{out}.unusable.jsonl").read_text().splitlines()]
    assert {(row["row"], row["reason"]) for row in unusable} == {(2, "refused"), (3, "failed")}


def test_max_requests_and_max_cost_stop_and_the_same_command_goes_on(serve: Serve, tmp_path: Path) -> None:
    server, file, requests = serve(), tmp_path / "ledger.sqlite", questions(30)
    halt, each = run(api_of(server, max_requests=7), requests, file)
    assert halt.reason == "max_requests=7 is reached" and each.answers == 7 == server.bill["counts"]["requests"]
    assert [row for (row,) in _query(file, "SELECT rowid FROM requests WHERE state = 'answered'")] == [*range(1, 8)]
    assert each.cost is not None
    limit = 2.5 * each.cost
    halt, each = run(api_of(server, max_cost=limit), requests, file)
    assert "max_cost" in halt.reason and each.cost is not None and 7 < each.answers < 30
    most = _query(file, "SELECT max(estimate) FROM requests")[0][0]
    assert limit - most < each.cost <= limit
    halt, each = run(api_of(server), requests, file)
    assert halt is None and each.answers == 30 == len(server.bill["bill"])


def test_a_budget_ends_label_after_the_file_is_written(serve: Serve, tmp_path: Path) -> None:
    server, out = serve(), tmp_path / "answers.jsonl"
    rows = prompts(tmp_path, [{"prompt": f"{i}?"} for i in range(9)])
    with pytest.raises(UserError, match=r"max_requests=4 is reached .*: 5 requests are open. The same command goes on"):
        label(rows, api_of(server, max_requests=4), Options(GREEDY), out, tmp_path, no_bar)
    assert [json.loads(line)["row"] for line in out.read_text().splitlines()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "another"}, "HTTP 401: .*Check the key in the environment variable OPENAI_API_KEY"),
        ({"refuse_all": True}, "20 requests have failed for the same reason: HTTP 400"),
    ],
)
def test_errors_of_all_requests_end_the_run(options: Any, words: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(**options)
    with pytest.raises(UserError, match=words) as error:
        run(api_of(server), questions(500), tmp_path / "ledger.sqlite")
    assert SECRET not in str(error.value) and server.bill["counts"]["requests"] < 40


def test_a_server_that_is_not_there_ends_the_run_unpaid(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    server.process.kill()
    server.process.wait()
    file = tmp_path / "ledger.sqlite"
    with pytest.raises(UserError, match=r"20 requests .*ConnectError.*provider.base_url=http://127"):
        run(api_of(server, attempts=2, concurrency=20, timeout=30.0), questions(100), file)
    assert _query(file, "SELECT sum(uncertain) FROM requests") == [(0,)]


def test_requests_that_may_have_been_paid_are_counted(serve: Serve, tmp_path: Path) -> None:
    server, file = serve(faults={"reset_after": 1.0}), tmp_path / "ledger.sqlite"
    halt, each = run(api_of(server, attempts=1), questions(5), file)
    assert halt is None and (each.failed, each.uncertain, each.answers) == (5, 5, 0)
    estimates = [value for (value,) in _query(file, "SELECT estimate FROM requests")]
    assert each.cost == 0 and each.cost_uncertain == pytest.approx(sum(estimates))
    halt, each = run(api_of(server, max_cost=sum(estimates)), questions(5), file)
    assert "max_cost" in halt.reason and each.answers == 0
    halt, each = run(api_of(server), questions(5), file)
    assert halt is None and each.answers == 5 and server.bill["paid_twice"] == 0 and len(server.bill["bill"]) == 5


def test_no_byte_that_is_written_holds_the_key(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server repeats the key in its errors and in an answer."""
    server, out = serve(faults={"429": 0.2, "500": 0.2}), tmp_path / "answers.jsonl"
    rows = prompts(tmp_path, [{"prompt": f"{i}?"} for i in range(20)] + [{"prompt": "REJECT"}, {"prompt": "ECHO"}])
    caplog.set_level("DEBUG")
    label(rows, api_of(server, attempts=20), Options(GREEDY), out, tmp_path / "cache", no_bar)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"answers.jsonl", "answers.jsonl.ledger.sqlite", "answers.jsonl.label.json"}
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in "".join(caplog.messages) + "".join(capsys.readouterr())
    errors = _query(Path(f"{out}.ledger.sqlite"), "SELECT error FROM requests WHERE state = 'failed'")
    assert len(errors) == 1 and "your key is [key]" in errors[0][0]
    assert "your key is [key]" in out.read_text()


def test_a_signal_stops_after_the_answers_that_travel(serve: Serve, tmp_path: Path) -> None:
    server, file = serve(latency=0.3), tmp_path / "ledger.sqlite"
    options = {
        "provider": "openai", "base_url": server.base_url("openai"), "prompts": 500, "ledger": str(file), "concurrency": 4,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    words = [sys.executable, str(Path(__file__).with_name("asking.py")), json.dumps(options)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    end = time.monotonic() + 60
    while server.bill["counts"].get("requests", 0) < 6:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=30)[0]
    assert "waiting for the answers of requests that are on their way" in printed
    bill = server.bill["bill"]
    rows = _query(
        file, "SELECT state, count(*), sum(uncertain), sum(owner IS NOT NULL) FROM requests GROUP BY 1 ORDER BY 1"
    )
    assert rows == [("answered", len(bill), 0, 0), ("waiting", 500 - len(bill), 0, 0)]


def test_a_dry_run_asks_nothing_and_needs_no_key(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, out, rows = serve(), tmp_path / "answers.jsonl", prompts(tmp_path, [{"prompt": f"{i}?"} for i in range(20)])
    monkeypatch.delenv("OPENAI_API_KEY")
    api, options = api_of(server), Options(GREEDY)
    words = dry_run(rows, api, options, out)
    assert "20 requests would be asked; the ledger holds 0 answers." in words and "out 400 (at most 400)" in words
    assert "1 USD in, 2 out per million tokens (set by provider.price)" in words
    assert not Path(f"{out}.ledger.sqlite").exists() and server.bill["counts"] == {}
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(UserError):
        label(rows, replace(api, max_requests=5), options, out, tmp_path, no_bar)
    words = dry_run(rows, api, options, out)
    bill = server.bill["bill"].values()
    assert (
        "15 requests would be asked; the ledger holds 5 answers." in words
        and "as 5 answers in the ledger have" in words
    )
    assert f"out {round(15 * sum(each['out'] for each in bill) / 5)} (at most 300)" in words
    assert "cost unknown" in dry_run(rows, api_of(server, price={}), options, out)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_cost": 1, "price": {}}, "max_cost=1 needs a price, .*provider.price.input"),
        ({"price": {"input": 1}}, "a price has two parts"),
        ({"price": {"input": -1, "output": 1}}, "provider.price.input=-1 must be"),
        ({"concurrency": 0}, "provider.concurrency=0"),
        ({"key_variable": "sk-abc"}, "no name of an environment variable"),
        ({"base_url": "http://user:pw@host/v1"}, "holds a user or a password"),
        ({"base_url": "host:80"}, "provider.base_url must be a URL"),
        ({"tokens_key": "n"}, "provider.tokens_key=n"),
        ({"extra": {"stream": True}}, "neither stream nor n"),
        ({"base_url": None}, "export OPENAI_API_KEY=<your key>"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match=words) as error:
        run(
            providers.openai(**{"model": "m", "base_url": "http://localhost:1/v1", **options}),
            questions(1),
            tmp_path / "l",
        )
    assert "sk-abc" not in str(error.value) and "pw" not in str(error.value)


def test_files_that_are_no_ledger_and_answers_of_others_are_refused(serve: Serve, tmp_path: Path) -> None:
    file, out = tmp_path / "l.sqlite", tmp_path / "answers.jsonl"
    file.write_text("some text that is long enough to be no database at all" * 20)
    with pytest.raises(UserError, match="cannot be opened: file is not a database"):
        Ledger(file)
    out.write_text('{"answer": "mine"}\n')
    with pytest.raises(UserError, match="was not written by an API's answers"):
        label(prompts(tmp_path, [{"prompt": "a?"}]), api_of(serve()), Options(GREEDY), out, tmp_path, no_bar)
    assert out.read_text() == '{"answer": "mine"}\n'


def test_bedrock_answers_and_its_errors(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through botocore. Bedrock has no idempotency keys: only errors that are not billed are injected."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    server, file = serve(faults={"429": 0.15, "500": 0.25, "529": 0.1}), tmp_path / "ledger.sqlite"
    requests = [*questions(30), *questions(2, "REJECT"), *questions(2, "FORBIDDEN")]
    api = api_of(server, "bedrock", region="us-east-1", attempts=20)
    halt, each = run(api, requests, file)
    bill = server.bill
    assert halt is None and (each.answers, each.refused, each.failed, each.uncertain) == (32, 2, 2, 0)
    assert len(bill["bill"]) == 32 and bill["counts"]["429"] > 0 and bill["counts"]["500"] > 0
    assert each.cost == pytest.approx(sum(one["in"] + 2 * one["out"] for one in bill["bill"].values()) / 1e6)
    with api.opened(requests, GREEDY, file) as ledger:
        answers = [answer for chunk in api.recorded(ledger) for answer in chunk]
    assert [answer.reason for answer in answers if answer] == ["ended"] * 30 + ["failed"] * 2 + ["refused"] * 2
    assert all(SECRET.encode() not in each.read_bytes() for each in tmp_path.iterdir())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UserError, match=r"Unable to locate credentials.*AWS_ACCESS_KEY_ID"):
        run(api_of(server, "bedrock", region="us-east-1"), questions(3, "new"), file)


def _query(file: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()
