"""One rollout over HTTP: incumbent and student as two processes, clients that ask without end, two restarts in the middle.

The incumbent is `mangakd serve <folder>`. The student is the same folder, made worse by rollout_side.py, so that the agreement of
the two is known. SIGTERM drains the student's process, SIGKILL does not; after each it is started again on its port.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from serving_client import Connection, Process, served

from mangakd.runtime.rollout.journal import read_lines

CONF = Path(__file__).resolve().parents[1] / "conf" / "rollout"
SIDE = str(Path(__file__).resolve().parent / "rollout_side.py")
CHANGES: dict[str, Any] = {"steps": [0.25, 0.5, 1.0], "compare": 1.0}  # of canary.yaml: a tenth of its questions
CLIENTS, PATIENCE = 8, 60  # seconds until a question without an answer is lost


@dataclass(frozen=True)
class Scene:
    """worse: how much less often the student agrees than expected. restarts: questions before each. death: before it breaks."""

    worse: float
    decision: str
    restarts: tuple[int, int]
    death: int | None = None


KINDS = {
    "equal": Scene(0.0, "complete", (1_000, 2_500)),
    "2 % worse": Scene(0.02, "hold", (300, 600)),
    "10 % worse": Scene(0.10, "roll back", (100, 200)),
    "dies": Scene(0.0, "roll back", (100, 200), death=400),
}


@dataclass
class Clients:
    """answered, lost, retried: questions; one is retried when its connection ends without an answer, or with 503."""

    url: str
    answered: int = 0
    lost: int = 0
    retried: int = 0
    over: bool = False
    statuses: dict[int, int] = field(default_factory=dict)

    async def work(self, numbers: itertools.count[int]) -> None:
        connection = Connection(self.url)
        while not self.over:
            number = next(numbers)
            if await self._ask(connection, [f"question number {number}"], f"q{number}"):
                self.answered += 1
            else:
                self.lost += 1
        connection.close()

    async def _ask(self, connection: Connection, texts: list[str], name: str) -> bool:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                status, _ = await connection.ask(texts, name)
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status == 200:
                    return True
            except (EOFError, OSError):
                connection.close()
            self.retried += 1
            await asyncio.sleep(0.05)
        return False


def write_rules(file: Path, **changes: Any) -> Path:
    """conf/rollout/canary.yaml with `changes`; those of a group change its keys."""
    rules = yaml.safe_load((CONF / "canary.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        rules[key] = {**rules[key], **value} if isinstance(value, dict) else value
    file.write_text(yaml.safe_dump(rules), encoding="utf-8")
    return file


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_http(kind: str, folder: Path, scratch: Path, most: int) -> dict[str, Any]:
    scene, place = KINDS[kind], scratch / kind.replace(" ", "_").replace("%", "percent")
    place.mkdir()
    with served(folder, place / "incumbent.log") as incumbent:
        log, broken = place / "rollout.jsonl", place / "broken"
        rules = write_rules(
            place / "rollout.yaml", incumbent=incumbent.url, log=str(log), every=1.0, step={"seconds": 0}, **CHANGES
        )
        expected = yaml.safe_load(rules.read_text())["agreement"]["expected"]
        words = (f"rollout={rules}", "--linger", "0", "--port", str(free_port()))
        script = (SIDE, str(1 - expected + scene.worse), str(broken))
        return asyncio.run(
            _play(scene, lambda n: Process(folder, place / f"{n}.log", *words, script=script), log, broken, most)
        )


async def _play(scene: Scene, start: Any, log: Path, broken: Path, most: int) -> dict[str, Any]:
    process = start(0)
    clients, numbers = Clients(process.url), itertools.count()
    asking = [asyncio.create_task(clients.work(numbers)) for _ in range(CLIENTS)]
    signals = [signal.SIGTERM, signal.SIGKILL]
    kept = []
    try:
        while (decision := _decided(log, scene.decision)) is None and clients.answered < most:
            await asyncio.sleep(0.1)
            done = 2 - len(signals)
            if signals and clients.answered >= scene.restarts[done]:
                before = _decisions(log)
                await asyncio.to_thread(process.end, signals.pop(0))
                process = await asyncio.to_thread(start, done + 1)
                kept.append(_decisions(log)[: len(before)] == before)
            if scene.death is not None and clients.answered >= scene.death:
                broken.touch()
        questions, clients.over = clients.answered, True
        await asyncio.gather(*asking)
    finally:
        process.end()
    shares = [CHANGES["steps"][0], *(line["to"] for line in _decisions(log) if line["from"] != line["to"])]
    return {
        "decision": decision, "questions": questions, "lost": clients.lost, "retried": clients.retried, "shares": shares,
        "restarts": 2 - len(signals), "decisions_kept": all(kept), "statuses": {str(k): v for k, v in clients.statuses.items()},
        "decisions": [{key: line[key] for key in ("decision", "why", "from", "to", "counts")} for line in _decisions(log)],
    }  # fmt: skip


def _decisions(log: Path) -> list[dict[str, Any]]:
    return [line for line in read_lines(log) if line["event"] == "decision"] if log.is_file() else []


def _decided(log: Path, kind: str) -> str | None:
    return next((line["decision"] for line in _decisions(log) if line["decision"] == kind), None)
