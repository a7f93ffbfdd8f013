"""`mangakd label provider=openai …` as a process: what it prints, what it leaves, how it ends."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from injecting import SECRET, Injecting
from warm import Command

Serve = Callable[..., Injecting]


@pytest.fixture
def words(tmp_path: Path) -> Callable[..., list[str]]:
    rows = [{"prompt": f"what is {i}?"} for i in range(12)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def make(server: Injecting, *more: str) -> list[str]:
        return [
            "scripts/label.py", "provider=openai", "provider.model=gpt-4.1-mini",
            f"provider.base_url={server.base_url('openai')}",
            f"data.path={tmp_path / 'prompts.jsonl'}", f"out={tmp_path / 'answers.jsonl'}", f"paths.cache={tmp_path / 'cache'}",
            "max_new_tokens=30", *more,
        ]  # fmt: skip

    return make


def test_a_dry_run_then_a_budget_then_all(
    serve: Serve, words: Callable[..., list[str]], command: Command, tmp_path: Path
) -> None:
    server, out = serve(), tmp_path / "answers.jsonl"
    dry = command(*words(server, "dry_run=true"), OPENAI_API_KEY="")
    assert dry.returncode == 0 and "12 requests would be asked" in dry.stdout and not out.exists()
    assert "0.4 USD in, 1.6 out per million tokens" in dry.stdout
    part = command(*words(server, "max_requests=5"))
    assert part.returncode == 1 and "error: max_requests=5 is reached" in part.stderr
    assert "5 answers to 12 requests" in part.stdout and "the same command goes on" in part.stderr.lower()
    whole = command(*words(server))
    assert (
        whole.returncode == 0
        and "12 answers to 12 requests" in whole.stdout
        and server.bill["counts"]["requests"] == 12
    )
    manifest = json.loads(Path(f"{out}.label.json").read_text())
    assert manifest["ledger"]["answers"] == 12 and manifest["teacher"]["model"] == "gpt-4.1-mini"
    bill = server.bill["bill"].values()
    assert manifest["ledger"]["cost"] == pytest.approx(sum(0.4 * each["in"] + 1.6 * each["out"] for each in bill) / 1e6)
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_wrong_key_is_told_and_not_repeated(serve: Serve, words: Callable[..., list[str]], command: Command) -> None:
    done = command(*words(serve()), OPENAI_API_KEY="sk-wrong")
    assert done.returncode == 1 and "HTTP 401" in done.stderr
    assert "Check the key in the environment variable OPENAI_API_KEY" in done.stderr
    assert "sk-wrong" not in done.stderr + done.stdout


def test_a_batch(serve: Serve, words: Callable[..., list[str]], command: Command) -> None:
    server = serve(batch_seconds=0.0)
    done = command(*words(server, "batch=true", "provider.batch_poll=0.05"))
    assert done.returncode == 0 and server.bill["batches"] == 1 and "12 answers to 12 requests" in done.stdout
    assert "batch batch-0: 12 requests" in done.stdout


def test_budgets_are_for_apis(serve: Serve, words: Callable[..., list[str]], command: Command) -> None:
    typed = [word for word in words(serve()) if not word.startswith("provider")]
    done = command(*typed, "provider.path=embedded_lm", "max_cost=3")
    assert done.returncode == 1 and "max_cost=3 is for providers behind an API" in done.stderr
