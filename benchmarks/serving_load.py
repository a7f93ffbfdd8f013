"""Load for `serving.py`: two services that are asked in turns, their speed, CPU time and answers.

Each client asks one text at a time over a connection that stays open, as soon as it has its last answer (a closed loop). The
sides take turns within each round and the next round reverses the order, so that other work on the machine slows all of them. CPU
time is that of the service's process, user and system, from /proc (Linux); other work moves it less than it moves seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from serving_client import Connection, Process

from mangakd.core.numbers import largest
from mangakd.runtime import Model

RETRY = 0.05  # seconds after a 429
WARM = 100  # questions before the first round
WORDS = [
    "where",
    "is",
    "my",
    "order",
    "number",
    "refund",
    "the",
    "manga",
    "volume",
    "shipping",
    "please",
    "cancel",
    "when",
]


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Questions of 1 to 30 words, 8 in the mean, as those of CLINC150."""
    chance = np.random.default_rng(seed)
    sizes = np.clip(chance.poisson(8, count) + chance.geometric(0.3, count) - 3, 1, 30)
    return [" ".join(chance.choice(WORDS, size=size)) for size in sizes]


async def ask_all(url: str, clients: int, requests: int, texts: list[str]) -> list[dict[str, Any]]:
    """[{text, seconds, status, body}] of `requests` questions, `clients` at a time. A 429 is noted, and asked again."""
    turns, answers = iter(range(requests)), list[dict[str, Any]]()

    async def ask(connection: Connection, text: str) -> int:
        start = time.perf_counter()
        status, body = await connection.ask([text], top=1)
        answers.append({"text": text, "seconds": time.perf_counter() - start, "status": status, "body": body})
        return status

    async def client() -> None:
        connection = Connection(url)
        for turn in turns:
            while await ask(connection, texts[turn % len(texts)]) == 429:
                await asyncio.sleep(RETRY)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


def compare(sides: Mapping[str, Process], clients: int, rounds: int, requests: int, judge: Judge) -> dict[str, Any]:
    """{side: numbers} of `requests` questions a round. ratio_*: to the last side, medians over the rounds."""
    names, loads = list(sides), {name: list[dict[str, Any]]() for name in sides}
    for process in sides.values():
        asyncio.run(ask_all(process.url, clients, WARM, judge.texts))
    for turn in range(rounds):
        for name in names[:: 1 if turn % 2 else -1]:
            loads[name].append(measure(sides[name], clients, requests, judge))
    return {name: summary(loads[name], loads[names[-1]]) for name in names}


def measure(process: Process, clients: int, requests: int, judge: Judge) -> dict[str, Any]:
    before, start = cpu_seconds(process.popen.pid), time.perf_counter()
    answers = asyncio.run(ask_all(process.url, clients, requests, judge.texts))
    seconds, cpu = time.perf_counter() - start, cpu_seconds(process.popen.pid) - before
    times = [1000 * answer["seconds"] for answer in answers if answer["status"] == 200]
    p50, p99 = np.percentile(times, [50, 99])
    speed = {"per_second": len(times) / seconds, "p50_ms": p50, "p99_ms": p99, "cpu_ms": 1000 * cpu / len(times)}
    return speed | judge(answers)


def summary(loads: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds; the largest gap; counts in all."""
    keys = ("per_second", "p50_ms", "p99_ms", "cpu_ms")
    numbers: dict[str, Any] = {key: statistics.median(load[key] for load in loads) for key in keys}
    for key in keys:
        pairs = zip(loads, others, strict=True)
        numbers[f"ratio_{key}"] = statistics.median(load[key] / other[key] for load, other in pairs)
    numbers["largest_gap"] = largest(load["largest_gap"] for load in loads)
    numbers["other_labels"] = sum(load["other_labels"] for load in loads)
    codes = {code for load in loads for code in load["statuses"]}
    numbers["statuses"] = {code: sum(load["statuses"].get(code, 0) for load in loads) for code in sorted(codes)}
    return numbers


class Judge:
    """Compares answers with the library's for each text alone."""

    def __init__(self, model: Model, texts: list[str]):
        self.texts = texts
        self._right = {text: model.answers(model.outputs([text]))[0] for text in texts}

    def __call__(self, answers: list[dict[str, Any]]) -> dict[str, Any]:
        """statuses; largest_gap between two numbers of one name; other_labels: answers that name another label."""
        codes = [str(answer["status"]) for answer in answers]
        good = [answer for answer in answers if answer["status"] == 200]
        pairs = [(json.loads(one["body"])["predictions"][0], self._right[one["text"]]) for one in good]
        return {
            "statuses": {code: codes.count(code) for code in set(codes)},
            "largest_gap": largest(gap(*pair) for pair in pairs),
            "other_labels": sum(answer.get("label") != right.get("label") for answer, right in pairs),
        }


def gap(answer: dict[str, Any], right: dict[str, Any]) -> float:
    """The largest difference between the numbers of two answers. `given` may show fewer of them."""
    numbers, expected = flat(answer), flat(right)
    assert numbers and numbers.keys() <= expected.keys(), (answer, right)
    return largest(abs(value - expected[key]) for key, value in numbers.items())


def flat(answer: dict[str, Any]) -> dict[Any, float]:
    for kind in ("probabilities", "values"):
        if kind in answer:
            return answer[kind]
    if "embedding" in answer:
        return dict(enumerate(answer["embedding"]))
    return {answer["label"]: answer["probability"]} if "label" in answer else answer


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of all its threads, those that have ended too."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batch_mean(process: Process) -> Callable[[], float]:
    """Call the result later: the mean number of texts in the batches since."""

    def totals() -> tuple[float, float]:
        page = httpx.get(process.url + "/metrics").text
        return tuple(float(re.search(rf"mangakd_batch_texts_{what} (\S+)", page)[1]) for what in ("sum", "count"))  # type: ignore[index,return-value]

    texts, batches = totals()

    def mean() -> float:
        more, runs = totals()
        return (more - texts) / (runs - batches)

    return mean
