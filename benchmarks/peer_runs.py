"""Child processes of peers.py, rank_peers.py and token_peers.py, in turn, so that a machine that slows down slows all sides."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from results_file import machine, table, write

PEERS = Path(__file__).resolve().parent / "peers"
Line = dict[str, Any]
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def parse(description: str, data: str, peer: str, rows: int | None, name: str) -> argparse.Namespace:
    """The command line. data: the folder that it names. peer: the package of the other Python. name: of the result.

    rows: the default of --rows; None where there is no such option.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help=f"the folder {data}")
    parser.add_argument("--peers-python", required=True, help=f"a Python with {peer}")
    parser.add_argument("--rounds", type=int, default=3)
    if rows is not None:
        parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--name", default=f"{name}_{date.today().isoformat()}", help="writes results/NAME.json and .md")
    options = parser.parse_args()
    print(f"{machine()['cpu']}, {machine()['cores']} cores", flush=True)
    return options


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


def ratios(speeds: Mapping[str, float]) -> dict[str, float]:
    """To the first of them."""
    base = next(iter(speeds.values()))
    return {title: round(value / base, 2) for title, value in speeds.items()}


def save(
    name: str, title: str, lines: Mapping[str, Sequence[Line]], ratios: Mapping[str, Any], columns: Sequence[str],
    rows: Sequence[Sequence[str]], note: str,
) -> Path:  # fmt: skip
    """results/NAME.json and .md. columns, rows: of the table. note: below it, with {rounds}."""
    rounds = min(map(len, lines.values()))
    content = {"versions": versions(lines), "rounds": rounds, "ratios": ratios, "lines": lines}
    return write(name, title, content, f"{table(columns, rows)}\n\n{note.format(rounds=rounds)}")
