"""Rollouts with real processes over HTTP: an equal, a worse and a broken student; restarts in the middle; nothing is lost."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

try:
    import fastapi  # noqa: F401
    import httpx
    import uvicorn  # noqa: F401
    import yaml
except ImportError as missing:
    pytest.skip(f"pip install fastapi uvicorn httpx pyyaml ({missing})", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from made_variant import HEAD, SEVERAL, copied, ranker, variant
from rollout_http import SIDE, free_port
from serving_client import Process, served

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.runtime import load
from mangakd.runtime.rollout.journal import read_lines
from mangakd.runtime.rollout.start import prepare
from mangakd.runtime.service import Settings

RULES: dict[str, Any] = {  # decides after some dozens of comparisons: tests/runtime/rollout_rules.py
    "steps": [0.5, 1.0], "compare": 1.0, "every": 0.2, "waiting": 1000,
    "agreement": {"expected": 0.9, "hold": 0.2, "rollback": 0.5},
    "errors": {"expected": 0.01, "rollback": 0.1}, "step": {"samples": 12, "seconds": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def incumbent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with served(variant(), tmp_path_factory.mktemp("incumbent") / "log", "--linger", "0") as process:
        yield process


class Player:
    """A student of which SHARE of the texts gets another label, behind a rollout; `broken` breaks it."""

    def __init__(self, folder: Path, incumbent: str, worse: float = 0.0, **changes: Any):
        self.log, self.broken, self._folder = folder / "rollout.jsonl", folder / "broken", folder
        rules = folder / "rollout.yaml"
        rules.write_text(yaml.safe_dump({**RULES, "incumbent": incumbent, "log": str(self.log), **changes}))
        self._words = (f"rollout={rules}", "--linger", "0", "--port", str(free_port()))
        self._script, self._starts = (SIDE, str(worse), str(self.broken)), 0
        self.process = self.start()

    def start(self) -> Process:
        self._starts += 1
        self.process = Process(variant(), self._folder / f"{self._starts}.log", *self._words, script=self._script)
        return self.process

    def asks(self, first: int, count: int) -> list[str]:
        """The side that answered each question, four at a time. A question without an answer is asked again."""
        with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=self.process.url, timeout=30) as client:
            return list(pool.map(lambda i: self._ask(client, f"q{i}"), range(first, first + count)))

    def _ask(self, client: httpx.Client, name: str) -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                answer = client.post("/predict", json={"texts": [f"order {name}"]}, headers={"x-request-id": name})
            except httpx.TransportError:  # the process is gone
                time.sleep(0.05)
                continue
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                assert answer.headers["x-request-id"] == name
                return answer.headers["x-mangakd-side"]
        raise AssertionError(f"{name} is lost")

    def until(self, decision: str, most: int = 600) -> list[str]:
        """Ask until the decision; the sides."""
        sides: list[str] = []
        while decision not in self.decisions:
            assert len(sides) < most, self.decisions
            sides += self.asks(len(sides), 20)
        return sides

    @property
    def decisions(self) -> list[str]:
        return [line["decision"] for line in read_lines(self.log) if line["event"] == "decision"]


@pytest.fixture
def play(tmp_path: Path, incumbent: Process) -> Iterator[Any]:
    players: list[Player] = []

    def start(worse: float = 0.0, incumbent_url: str = incumbent.url, **changes: Any) -> Player:
        players.append(Player(tmp_path, incumbent_url, worse, **changes))
        return players[-1]

    yield start
    for player in players:
        player.process.end(signal.SIGKILL)


def test_an_equal_student_completes_through_two_restarts(play: Any) -> None:
    player = play()
    with ThreadPoolExecutor(1) as pool:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            asking = pool.submit(player.asks, 1000 * signal_number, 60)  # asks while the process ends and starts
            time.sleep(0.1)
            before = [line for line in read_lines(player.log) if line["event"] == "decision"]
            assert player.process.end(signal_number) == (0 if signal_number == signal.SIGTERM else -signal.SIGKILL)
            player.start()
            assert len(asking.result()) == 60
            after = [line for line in read_lines(player.log) if line["event"] == "decision"]
            assert after[: len(before)] == before
    player.until("complete")
    assert player.decisions == ["raise", "complete"] and set(player.asks(5000, 20)) == {"student"}
    assert [line["event"] for line in read_lines(player.log)].count("restart") == 2
    page = httpx.get(player.process.url + "/metrics").text
    assert "mangakd_rollout_share 1" in page and 'mangakd_rollout_phase{phase="complete"} 1' in page


def test_a_student_that_is_a_little_worse_is_held(play: Any) -> None:
    """Agreement 0.65, where 0.9 is expected: over `hold`, 0.2, and far from `rollback`, 0.5."""
    player = play(worse=0.35)
    player.until("hold")
    assert player.decisions == ["hold"] and player.asks(0, 60).count("student") > 10
    player.process.end(signal.SIGKILL)
    player.start()
    assert "held" in httpx.get(player.process.url + "/metrics").text
    assert read_lines(player.log)[-1]["phase"] == "held"


def test_a_student_that_is_much_worse_is_rolled_back(play: Any) -> None:
    player = play(worse=0.9)
    player.until("roll back")
    assert set(player.asks(0, 20)) == {"incumbent"}
    player.process.end(signal.SIGKILL)
    player.start()
    assert set(player.asks(0, 20)) == {"incumbent"}  # after a restart, too
    line = [line for line in read_lines(player.log) if line["event"] == "decision"][-1]
    assert (line["from"], line["to"]) == (0.5, 0.0) and line["tests"]["agreement"]["failures"] >= 7


def test_a_student_that_dies_is_rolled_back_and_loses_no_question(play: Any) -> None:
    player = play()
    assert set(player.asks(0, 20)) == {"student", "incumbent"}
    player.broken.touch()
    assert set(player.asks(20, 40)) == {"incumbent"}
    assert player.decisions[-1:] == ["roll back"]
    page = httpx.get(player.process.url + "/metrics").text
    assert 'mangakd_requests_total{path="/predict",status="200"} 60' in page


def test_an_incumbent_that_is_away_is_answered_for(play: Any, tmp_path: Path) -> None:
    player = play(incumbent_url=f"http://127.0.0.1:{free_port()}")
    assert player.asks(0, 30) == ["student"] * 30
    player.broken.touch()
    answer = httpx.post(player.process.url + "/predict", json={"texts": ["order"]})
    assert answer.status_code == 503 and "both fail" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("several", "/predict", {"texts": ["order", "refund"]}),
        ("vector", "/embed", {"inputs": ["order", "refund"]}),
        ("pairs", "/rerank", {"query": "order", "texts": ["a", "refund", "shipping"]}),
    ],
)
def test_an_incumbent_in_a_folder_and_other_kinds(kind: str, path: str, body: dict[str, Any], tmp_path: Path) -> None:
    """Both are the same folder's copy, so that each comparison agrees. The incumbent lies in a folder beside it."""
    student = {"several": lambda: variant(SEVERAL), "vector": lambda: variant(Head("vector", 4)), "pairs": ranker}[
        kind
    ]()
    rules, log = tmp_path / "rules.yaml", tmp_path / "r.jsonl"
    rules.write_text(yaml.safe_dump({**RULES, "log": str(log)}))
    words = ("--rollout", str(rules), "--incumbent", str(copied(student, tmp_path / "incumbent")), "--linger", "0")
    with served(student, tmp_path / "log", *words) as process, httpx.Client(base_url=process.url, timeout=30) as client:
        answers = [client.post(path, json=body) for _ in range(40)]
        assert {answer.status_code for answer in answers} == {200} and len({answer.text for answer in answers}) == 1
        assert {answer.headers["x-mangakd-side"] for answer in answers} == {"student", "incumbent"}
        assert client.get("/nowhere").status_code == 404 and client.post("/nowhere").status_code == 404
        until = time.monotonic() + 20
        while 'compared_total{result="agreed"} 0' in (page := client.get("/metrics").text) and time.monotonic() < until:
            time.sleep(0.05)
        assert 'compared_total{result="disagreed"} 0' in page and 'dropped_total{reason="unlike"} 0' in page
        assert process.end() == 0
    assert read_lines(log)[-1]["counts"]["compared"] > 0
    assert not [line for line in process.text.splitlines() if json.loads(line)["level"] == "error"]


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    from test_serve_command import said

    assert "rollout=nowhere.yaml is no file" in said(str(variant(HEAD)), "--port", "0", "rollout=nowhere.yaml")


@pytest.mark.parametrize(
    ("incumbent", "message"),
    [
        ("nowhere", "nowhere is neither a folder nor a URL"),
        ("ftp://x", "ftp://x is no URL that can be asked"),
        ("LANGUAGE", "is a language model, which needs an engine of its own"),
        ("RANKER", "two that answer the same questions"),
    ],
)
def test_an_incumbent_that_cannot_be_one(incumbent: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"log": str(tmp_path / "r.jsonl")}))
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "language.json").touch()
    given = {"LANGUAGE": str(tmp_path / "lm"), "RANKER": str(ranker())}.get(incumbent, incumbent)
    with pytest.raises(UserError, match=message):
        prepare(str(tmp_path / "rules.yaml"), given, str(variant()), Settings(), 1).around(load(variant(), 1))
    assert not (tmp_path / "r.jsonl").exists()
