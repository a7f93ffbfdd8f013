"""How fast is the service beside the one that most people write first, and does it hold?

    python benchmarks/serving.py export/onnx_int8_static

scripts/serve.py as it starts and serving_plain.py serve the same file on this machine. 1, 8 and 32 clients in one other process
ask them in turns (serving_load.py). Then the service alone: a queue that is full, 10,000 strange bodies, and SIGTERM under load.
Every answer is compared with the library's for its text alone.

Exits with 1 when a status is neither 200 nor 429, an answer moves with its company, a strange body gets neither an answer nor a
reason, or a drain loses a question. It needs neither torch nor transformers. The cold start is scripts/benchmark_serving.py.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from results_file import table, write
from serving_client import Connection, Process, fuzz, served, strange_bodies
from serving_load import Judge, batch_mean, compare, make_texts, measure

from mangakd.runtime import Model, load

CLIENTS = (1, 8, 32)
PLAIN = Path(__file__).resolve().parent / "serving_plain.py"
TEXTS = 500
COMPANY = 1e-4  # of a probability: what rounding may move
FORMS = {"per_second": ".0f", "p50_ms": ".1f", "p99_ms": ".1f", "cpu_ms": ".2f"}
RATIOS = ("ratio_per_second", "ratio_p50_ms", "ratio_cpu_ms")
HEAD = ("clients", "side", "answers/s", "p50 ms", "p99 ms", "CPU ms", "to plain: answers/s", "p50", "CPU", "batch")
PACKAGES = ("numpy", "tokenizers", "onnxruntime", "openvino", "fastapi", "uvicorn", "uvloop", "httptools", "httpx")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--texts", type=Path, help="a file with one question a line; made-up ones if left out")
    options.add_argument("--rounds", type=int, default=9, help="of each number of clients")
    options.add_argument("--requests", type=int, default=500, help="in a round of one side")
    options.add_argument("--bodies", type=int, default=10_000, help="strange ones")
    options.add_argument("--name", default="serving", help="of the files in results/")
    arguments = options.parse_args()
    model = load(arguments.folder, threads=1)
    texts = arguments.texts.read_text(encoding="utf-8").splitlines()[:TEXTS] if arguments.texts else make_texts(TEXTS)
    judge = Judge(model, texts)
    with tempfile.TemporaryDirectory() as scratch:
        loads = measure_loads(model, Path(scratch), judge, arguments.rounds, arguments.requests)
        alone = measure_alone(arguments.folder, Path(scratch), judge, arguments.bodies)
    results = {"load": loads, **alone}
    report(arguments.name, model, results, "of a file" if arguments.texts else "made up")
    if faults := wrong(results):
        sys.exit("\n".join(faults))


def measure_loads(model: Model, scratch: Path, judge: Judge, rounds: int, requests: int) -> dict[str, Any]:
    """{clients: {side: numbers}}. The plain service takes classifiers in onnxruntime only."""
    about = model.manifest
    with served(about.folder, scratch / "log") as ours:
        if about.backend != "onnxruntime" or about.head.kind != "labels" or about.head.several:
            return measure_sides({"service": ours}, rounds, requests, judge)
        with served(about.folder, scratch / "plain.log", script=(str(PLAIN),)) as plain:
            return measure_sides({"service": ours, "plain": plain}, rounds, requests, judge)


def measure_sides(sides: dict[str, Process], rounds: int, requests: int, judge: Judge) -> dict[str, Any]:
    loads = {}
    for clients in CLIENTS:
        mean = batch_mean(sides["service"])
        loads[str(clients)] = compare(sides, clients, rounds, requests, judge)
        loads[str(clients)]["service"]["texts_a_batch"] = mean()
    return loads


def measure_alone(folder: Path, scratch: Path, judge: Judge, bodies: int) -> dict[str, Any]:
    with served(folder, scratch / "alone.log") as process:
        strange = fuzz(process.url, strange_bodies(bodies))
        code = process.end()
    with served(folder, scratch / "full.log", "--queue", "4", "--max-texts", "4") as process:
        full = measure(process, 64, 500, judge)
    return {"full_queue": full, "fuzz": strange, "exit_code": code, "drain": measure_drain(folder, scratch)}


def measure_drain(folder: Path, scratch: Path) -> dict[str, Any]:
    """SIGTERM while 16 clients ask without end: each question is answered or refused, none is lost half-way."""

    statuses, errors = list[int](), list[str]()

    async def client(url: str) -> None:
        connection = Connection(url)
        while 503 not in statuses:
            try:
                statuses.append((await connection.ask(["where is my order?"]))[0])
            except ConnectionRefusedError:  # the port is closed: refused, not lost
                return
            except (EOFError, OSError) as error:
                errors.append(repr(error))
                connection.close()

    async def scene(process: Process) -> None:
        asking = asyncio.gather(*(client(process.url) for _ in range(16)))
        await asyncio.sleep(1)
        process.popen.terminate()
        await asyncio.wait_for(asking, 60)

    with served(folder, scratch / "drain.log", "--linger", "0.5") as process:
        asyncio.run(scene(process))
        code = process.popen.wait(60)
    return {"statuses": {str(c): statuses.count(c) for c in set(statuses)}, "lost": errors, "exit_code": code}


def wrong(results: dict[str, Any]) -> list[str]:
    services = {f"{clients} clients": sides["service"] for clients, sides in results["load"].items()}
    faults = []
    for name, one in {**services, "a full queue": results["full_queue"]}.items():
        if not one["statuses"].keys() <= {"200", "429"}:
            faults.append(f"{name} got {one['statuses']}")
        if not one["largest_gap"] <= COMPANY:
            faults.append(f"{name}: an answer moved by {one['largest_gap']:.3g} with its company")
    if results["drain"]["lost"] or results["drain"]["exit_code"] or results["exit_code"]:
        faults.append(f"the drain: {results['drain']}, exit code {results['exit_code']}")
    return faults


def report(name: str, model: Model, results: dict[str, Any], texts: str) -> None:
    about, drain, full = model.manifest, results["drain"], results["full_queue"]
    size = sum((about.folder / file).stat().st_size for file in about.content["files"])
    rows = [row(clients, side, one) for clients, sides in results["load"].items() for side, one in sides.items()]
    body = f"""Variant `{about.variant}` ({size / 1e6:.1f} MB), one text a question ({texts}), both sides as they start; the
clients run on the same cores. Medians over rounds in which the sides take turns. CPU: the server's, for an answer. Batch: texts.

{table(HEAD, rows)}

- Largest difference between an answer and that of the same text computed alone in the library:
  {max(sides["service"]["largest_gap"] for sides in results["load"].values()):.1g} of a probability.
- A queue of 4 and 64 clients: {full["statuses"]}.
- Statuses of {sum(results["fuzz"].values()):,} strange bodies: {results["fuzz"]}.
- SIGTERM under the load of 16 clients: {drain["statuses"]}, {len(drain["lost"])} lost, exit code {drain["exit_code"]}."""
    facts = {"variant": about.variant, "max_length": about.max_length, "bytes": size}
    content = {"versions": versions(), "model": facts, **results}
    print(write(name, "Serving", content, body).read_text(encoding="utf-8"))


def row(clients: str, side: str, one: dict[str, Any]) -> list[str]:
    ratios = [f"{one[key]:.2f} ×" for key in RATIOS] if side == "service" else [""] * len(RATIOS)
    batch = f"{one['texts_a_batch']:.1f}" if "texts_a_batch" in one else ""
    return [clients, side, *(f"{one[key]:{form}}" for key, form in FORMS.items()), *ratios, batch]


def versions() -> dict[str, str]:
    """Of what is installed: uvicorn takes uvloop and httptools where they are."""
    result = {}
    for package in PACKAGES:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            result[package] = "absent"
    return result


if __name__ == "__main__":
    main()
