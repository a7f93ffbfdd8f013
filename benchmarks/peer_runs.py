"""Child processes of peers.py, rank_peers.py and token_peers.py, in turn, so that a machine that slows down slows all sides."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
Line = dict[str, Any]
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def child(title: str, command: Sequence[str]) -> Line:
    """One child process; its JSON line is the last line it prints."""
    process = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True)
    if process.returncode != 0:
        raise SystemExit(f"{title} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def measure(
    titles: Sequence[str], rounds: int, run: Callable[[str, int], Line], speed: str
) -> Iterator[dict[str, list[Line]]]:
    """The lines so far, after each round; every second round turns the order around. run: of a title and a seed.

    speed: entry of a line that is shown.
    """
    lines: dict[str, list[Line]] = {title: [] for title in titles}
    for seed in range(rounds):
        for title in titles if seed % 2 == 0 else titles[::-1]:
            lines[title].append(run(title, seed))
            print(
                f"round {seed + 1} of {rounds}: {title}: {lines[title][-1][speed]} {speed.replace('_', ' ')}",
                flush=True,
            )
        yield lines


def median(lines: Sequence[Line], key: str) -> float:
    return statistics.median(line[key] for line in lines)


def versions(lines: Mapping[str, Sequence[Line]]) -> dict[str, str]:
    every = [line for each in lines.values() for line in each]
    torches = ", ".join(sorted({line["torch"] for line in every}))
    return {**{line["framework"]: line["version"] for line in every}, "torch": torches}
