"""How fast is the service, and does it hold? Load at 1, 8 and 64 clients, a full queue, 10,000 strange bodies, a drain.

    python benchmarks/serving.py export/best

Everything runs on this machine: scripts/serve.py with one model thread, and clients in one other process on 127.0.0.1, which take
turns on the same cores. Each client asks one text at a time as soon as it has its last answer (a closed loop), for a number of
requests that is fixed beforehand. Every answer is compared with the library's for that text alone; int8 variants differ a little
with the batch, whose largest activation sets the scale. Exits with 1 when a status is neither 200 nor 429, a number is farther
away than twice the manifest's tolerance, a strange body gets anything but an answer or a reason, or a drain loses a question. It
needs neither torch nor transformers. The cold start is scripts/benchmark_serving.py.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from results_file import table, write
from serving_client import Connection, Process, fuzz, served, strange_bodies

from mangakd.core.numbers import largest
from mangakd.runtime import Model, load

CLIENTS = (1, 8, 64)
RETRY = 0.05  # seconds after a 429
TEXTS = 500
ROUNDING = 1e-4
FORMS = {
    "per_second": ".0f", "p50_ms": ".1f", "p99_ms": ".1f", "texts_a_batch": ".1f", "largest_gap": ".1g", "other_labels": "d",
}  # fmt: skip
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


def made_texts(count: int, seed: int = 0) -> list[str]:
    """Questions of 1 to 30 words."""
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, size=chance.integers(1, 31))) for _ in range(count)]


def right_answers(model: Model, texts: list[str]) -> dict[str, np.ndarray]:
    """The row of each text, computed alone: what each answer is compared with."""
    return {text: model.outputs([text])[0] for text in texts}


async def load_with(url: str, clients: int, requests: int, texts: list[str]) -> list[dict[str, Any]]:
    """[{text, seconds, status, answer}] of `requests` questions, `clients` at a time. A 429 is kept, and asked again."""
    waiting, done = iter(range(requests)), list[dict[str, Any]]()

    async def ask(connection: Connection, text: str) -> int:
        start = time.perf_counter()
        status, answer = await connection.ask([text])
        done.append({"text": text, "seconds": time.perf_counter() - start, "status": status, "answer": answer})
        return status

    async def client() -> None:
        connection = Connection(url)
        for turn in waiting:
            while await ask(connection, texts[turn % len(texts)]) == 429:
                await asyncio.sleep(RETRY)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return done


def judged(done: list[dict[str, Any]], right: dict[str, np.ndarray], model: Model, seconds: float) -> dict[str, Any]:
    """Throughput, latency, statuses, and how far the answers are from those of each text alone."""
    good = [one for one in done if one["status"] == 200]
    times = 1000 * np.array([one["seconds"] for one in good])
    p50, p99 = np.percentile(times, [50, 99])
    statuses = {str(code): sum(one["status"] == code for one in done) for code in {one["status"] for one in done}}
    pairs = [(one["answer"]["predictions"][0], model.answers(right[one["text"]][None])[0]) for one in good]
    return {
        "per_second": len(good) / seconds,
        "p50_ms": p50,
        "p99_ms": p99,
        "statuses": statuses,
        "largest_gap": largest(gap(*pair) for pair in pairs),
        "other_labels": sum(given.get("label") != wanted.get("label") for given, wanted in pairs),
    }


def gap(given: dict[str, Any], right: dict[str, Any]) -> float:
    """The largest difference between two answers' numbers."""
    pairs = [flat(given), flat(right)]
    assert pairs[0].keys() == pairs[1].keys(), pairs
    return largest(abs(value - pairs[1][key]) for key, value in pairs[0].items())


def flat(answer: dict[str, Any]) -> dict[Any, float]:
    for kind in ("probabilities", "values"):
        if kind in answer:
            return answer[kind]
    return dict(enumerate(answer["embedding"])) if "embedding" in answer else answer


def batch_mean(url: str) -> tuple[float, float]:
    """(texts, batches) computed so far, from /metrics."""
    page = httpx.get(url + "/metrics").text
    return tuple(float(re.search(rf"mangakd_batch_texts_{what} (\S+)", page)[1]) for what in ("sum", "count"))  # type: ignore[index,return-value]


def measure_load(process: Process, clients: int, requests: int, model: Model) -> dict[str, Any]:
    texts = made_texts(TEXTS)
    right = right_answers(model, texts)
    asyncio.run(load_with(process.url, clients, 50, texts))  # warm
    before, start = batch_mean(process.url), time.perf_counter()
    done = asyncio.run(load_with(process.url, clients, requests, texts))
    result = judged(done, right, model, time.perf_counter() - start)
    after = batch_mean(process.url)
    return {"clients": clients, **result, "texts_a_batch": (after[0] - before[0]) / (after[1] - before[1])}


def measure_drain(folder: Path, scratch: Path) -> dict[str, Any]:
    """SIGTERM while 16 clients ask without end: each question is answered or refused, none is lost half-way."""

    statuses, lost = list[int](), list[str]()

    async def client(url: str) -> None:
        connection = Connection(url)
        while 503 not in statuses:
            try:
                statuses.append((await connection.ask(["where is my order?"]))[0])
            except ConnectionRefusedError:  # the port is closed: refused, not lost
                return
            except (EOFError, OSError) as error:
                lost.append(repr(error))
                connection.close()

    async def scene(process: Process) -> None:
        asking = asyncio.gather(*(client(process.url) for _ in range(16)))
        await asyncio.sleep(1)
        process.popen.terminate()
        await asyncio.wait_for(asking, 60)

    with served(folder, scratch / "drain.log", "--linger", "0.5") as process:
        asyncio.run(scene(process))
        code = process.popen.wait(60)
    return {"statuses": {str(c): statuses.count(c) for c in set(statuses)}, "lost": lost, "exit_code": code}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--requests", type=int, default=2000, help="of each number of clients")
    options.add_argument("--bodies", type=int, default=10_000, help="strange ones")
    options.add_argument("--name", default="serving", help="of the files in results/")
    given = options.parse_args()
    model = load(given.folder, threads=1)
    with tempfile.TemporaryDirectory() as name:
        found = measure(given.folder, Path(name), given.requests, given.bodies, model)
    report(given.name, model, found)
    if faults := wrong(found, model.manifest.tolerance):
        sys.exit("\n".join(faults))


def measure(folder: Path, scratch: Path, requests: int, bodies: int, model: Model) -> dict[str, Any]:
    with served(folder, scratch / "log") as process:
        loads = [measure_load(process, clients, requests, model) for clients in CLIENTS]
        fuzzed = fuzz(process.url, strange_bodies(bodies))
        ended = process.end()
    with served(folder, scratch / "full.log", "--queue", "4", "--max-texts", "4") as process:
        full = measure_load(process, 64, requests // 4, model)
    drain = measure_drain(folder, scratch)
    return {"load": loads, "full_queue": full, "fuzz": fuzzed, "exit_code": ended, "drain": drain}


def wrong(found: dict[str, Any], tolerance: float) -> list[str]:
    """tolerance: of the manifest, in logits. A probability moves by no more than they do, two answers by both their errors."""
    faults, near = [], 2 * tolerance + ROUNDING
    for one in [*found["load"], found["full_queue"]]:
        if not one["statuses"].keys() <= {"200", "429"}:
            faults.append(f"{one['clients']} clients got {one['statuses']}")
        if not one["largest_gap"] <= near:
            faults.append(f"{one['clients']} clients: an answer is {one['largest_gap']:.3g} from the library's")
    if found["drain"]["lost"] or found["drain"]["exit_code"] or found["exit_code"]:
        faults.append(f"the drain: {found['drain']}, exit code {found['exit_code']}")
    return faults


def report(name: str, model: Model, found: dict[str, Any]) -> None:
    about = model.manifest
    packages = ("numpy", "tokenizers", about.backend, "fastapi", "uvicorn", "httpx")
    size = sum((about.folder / file).stat().st_size for file in about.content["files"])
    rows = [row("", one) for one in found["load"]] + [row(", queue of 4", found["full_queue"])]
    head = ("clients", "answers/s", "p50 ms", "p99 ms", "texts a batch", "429s", "largest difference", "other labels")
    drain = found["drain"]
    body = f"""Variant `{about.variant}` ({size / 1e6:.1f} MB), one text a question, 1 to 30 words, one model thread; the clients
run on the same cores.

{table(head, rows)}

- Difference: between an answer and that of the same text computed alone in the library.
- Statuses of {sum(found["fuzz"].values()):,} strange bodies: {found["fuzz"]}.
- SIGTERM under the load of 16 clients: {drain["statuses"]}, {len(drain["lost"])} lost, exit code {drain["exit_code"]}."""
    facts = {"variant": about.variant, "max_length": about.max_length, "bytes": size}
    content = {"versions": {package: version(package) for package in packages}, "model": facts, **found}
    print(write(name, "Serving", content, body).read_text())


def row(kind: str, one: dict[str, Any]) -> list[str]:
    numbers = [f"{one[key]:{form}}" for key, form in FORMS.items()]
    numbers.insert(4, str(one["statuses"].get("429", 0)))
    return [f"{one['clients']}{kind}", *numbers]


if __name__ == "__main__":
    main()
