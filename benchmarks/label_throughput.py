"""What the ledger, limits and retries of `label` cost: wall time against a plain asyncio script, and throughput against a limit.

    python benchmarks/label_throughput.py [rounds=5] [prompts=400] [concurrency=8] [limit=1800]

The server of the tests (tests/labelling/injecting_server.py) answers after 50 ms. Both sides use OpenAI's official client at
the same concurrency, in alternated rounds, each in a process of its own; imports are not counted. The second measurement asks a
server that allows `limit` requests a minute, says so in its headers, and refuses what comes too early.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import results_file

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("plain", "mangakd")
LATENCY = 0.05


@contextlib.contextmanager
def server(**options: Any) -> Iterator[str]:
    """The address of a server."""
    words = [sys.executable, str(ROOT / "tests/labelling/injecting_server.py"), json.dumps(options)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def seconds(side: str, address: str, prompts: int, concurrency: int) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "side": side,
            "base_url": f"{address}/v1",
            "prompts": prompts,
            "concurrency": concurrency,
            "folder": folder,
        }
        words = [sys.executable, str(ROOT / "benchmarks/label_side.py"), json.dumps(options)]
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def counts(address: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{address}/bill") as reply:
        return json.load(reply)["counts"]  # type: ignore[no-any-return]


def main(rounds: int = 5, prompts: int = 400, concurrency: int = 8, limit: int = 1800) -> None:
    walls: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            with server(latency=LATENCY) as address:
                walls[side].append(seconds(side, address, prompts, concurrency))
            print(side, f"{walls[side][-1]:.2f} s", flush=True)
    ratios = [ours / plain for ours, plain in zip(walls["mangakd"], walls["plain"], strict=True)]
    shares, refusals = [], []
    for _ in range(rounds):
        with server(latency=LATENCY, limit=limit) as address:
            wall = seconds("mangakd", address, prompts, 2 * concurrency)
            refusals.append(counts(address).get("over_limit", 0))
        possible = (prompts - limit / 60) * 60 / limit  # the server's bucket holds a second's worth at the start
        shares.append(possible / wall)
        print(
            f"limit {limit}/min: {wall:.2f} s of {possible:.2f} s that it allows, {refusals[-1]} refusals", flush=True
        )
    ratio, share = statistics.median(ratios), statistics.median(shares)
    rows = [
        [f"plain asyncio script, {concurrency} at a time", f"{statistics.median(walls['plain']):.2f} s", ""],
        [f"mangakd, {concurrency} at a time", f"{statistics.median(walls['mangakd']):.2f} s",
         f"{ratio:.2f} × the plain script ({min(ratios):.2f} to {max(ratios):.2f})"],
        [f"mangakd, {limit} requests a minute allowed", f"{statistics.median(shares) * limit:.0f} a minute",
         f"{share:.2f} of the limit ({min(shares):.2f} to {max(shares):.2f}), {statistics.median(refusals):g} refusals"],
    ]  # fmt: skip
    body = (
        f"{prompts} prompts, answers after {LATENCY * 1000:.0f} ms, medians of {rounds} alternated rounds.\n\n"
        + results_file.table(["side", "median", "against"], rows)
    )
    content = {
        "versions": {name: version(name) for name in ("openai", "httpx")}, "rounds": rounds, "prompts": prompts,
        "concurrency": concurrency, "latency": LATENCY, "limit": limit, "seconds": walls, "ratios": ratios,
        "shares_of_limit": shares, "refusals": refusals,
    }  # fmt: skip
    print(
        results_file.write(
            "label_throughput", "Asking an API: what ledger, limits and retries cost", content, body
        ).read_text()
    )


if __name__ == "__main__":
    main(**{name: int(value) for name, value in (word.split("=") for word in sys.argv[1:])})
