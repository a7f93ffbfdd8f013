"""A judge behind an API, over real HTTP with injected faults: a budget stops it, and no verdict is paid for twice."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from injecting import SECRET, Injecting
from warm import Command

ROWS = [{"prompt": f"what is {i}?", "answer": f"the number {i * 7919} of the list"} for i in range(12)]


@pytest.fixture
def words(tmp_path: Path) -> Callable[..., list[str]]:
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def make(server: Injecting, *more: str) -> list[str]:
        return [
            "scripts/curate.py",
            f"data.path={tmp_path / 'answers.jsonl'}",
            f"out={tmp_path / 'out'}",
            f"paths.cache={tmp_path / 'cache'}",
            "judge.use=true",
            "provider=openai",
            "provider.model=gpt-4.1-mini",
            f"provider.base_url={server.base_url('openai')}",
            "filters.language.use=false",
            *more,
        ]

    return make


def test_verdicts_are_paid_for_once(
    serve: Callable[..., Injecting], words: Callable[..., list[str]], command: Command, tmp_path: Path
) -> None:
    """The server's answers hold no score: all rows are left out, by a message, and their verdicts stay."""
    server = serve(faults={"429": 0.2, "500": 0.1})
    part = command(*words(server, "judge.max_requests=5"))
    assert part.returncode == 1 and "max_requests=5 is reached" in part.stderr
    whole = command(*words(server))
    assert whole.returncode == 1 and "is left: judge left out 12" in whole.stderr
    assert len(server.bill["bill"]) == 12 and server.bill["paid_twice"] == 0
    asked = server.bill["counts"]["requests"]
    verdicts = tmp_path / "out.judge.jsonl"
    assert len(verdicts.read_text().splitlines()) == 12
    verdicts.unlink()
    command(*words(server))
    assert server.bill["counts"]["requests"] == asked and len(verdicts.read_text().splitlines()) == 12, (
        "out of the ledger"
    )
    assert (tmp_path / "out.judge.ledger.sqlite").exists() and not (tmp_path / "out").exists()
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
