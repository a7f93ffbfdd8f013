"""mangakd beside other ways to distil: samples per second of a training step, in one thread.

    python benchmarks/peers.py --data PATH --peers-python PATH/TO/python --rounds 3 --steps 40 --bucketed-steps 230

Runs the scripts in benchmarks/peers as child processes, all of them once a round and in turn, so that a machine that slows
down slows all. The peers run under their own Python (benchmarks/README.md tells how to make it), mangakd under this one.
What is counted, and what is equal for everyone, is in peers/common.py. Each round has its own order of texts (its seed).

A ratio is of the medians of samples per CPU second, to the Hugging Face Trainer padded to 64 tokens with a live teacher.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from results_file import machine, table, write

PEERS = Path(__file__).resolve().parent / "peers"
Line = dict[str, Any]  # what a child printed


@dataclass(frozen=True)
class Variant:
    """One row of the table. script: in benchmarks/peers. own: runs under this Python."""

    title: str
    script: str
    padding: str
    teacher: str = "live"
    own: bool = False

    def command(self, options: argparse.Namespace, seed: int, cache: str) -> list[str]:
        python = sys.executable if self.own else options.peers_python
        steps = options.bucketed_steps if self.padding == "bucketed" else options.steps
        words = [python, str(PEERS / self.script), "--data", options.data, "--padding", self.padding]
        words += ["--steps", str(steps), "--warmup", str(options.warmup), "--seed", str(seed)]
        return words + (["--teacher", self.teacher, "--cache", cache] if self.own else [])


VARIANTS = (
    Variant("Trainer, padded to 64", "hf_trainer.py", "max"),
    Variant("TextBrewer, padded to 64", "textbrewer_kd.py", "max"),
    Variant("torchdistill, padded to 64", "torchdistill_kd.py", "max"),
    Variant("Trainer, dynamic padding", "hf_trainer.py", "dynamic"),
    Variant("TextBrewer, dynamic padding", "textbrewer_kd.py", "dynamic"),
    Variant("torchdistill, dynamic padding", "torchdistill_kd.py", "dynamic"),
    Variant("mangakd, the peers' batches", "mangakd_kd.py", "dynamic", own=True),
    Variant("mangakd", "mangakd_kd.py", "bucketed", own=True),
    Variant("mangakd, stored soft targets", "mangakd_kd.py", "bucketed", "stored", own=True),
)
BASE = VARIANTS[0].title

NOTE = """Medians over the rounds: {rounds}. `ratio` is of samples per CPU second, `wall ratio` of samples per wall second, both
to the first row. `tokens` is the mean length to which a batch was padded.

- Equal for all: BERT 4 layers / 312 taught by MiniLM-L6 (384), CLINC150, batches of 64 texts of at most 64 tokens, fused
  AdamW, cross-entropy and KL at T = 4, no clipping, one torch thread, the clock of `benchmarks/peers/common.py`.
- *padded to 64*: every text padded when tokenising. *dynamic padding*: batches in random order, padded to their longest.
- *mangakd, the peers' batches*: mangakd's training with exactly the batches of *dynamic padding*; shows the framework alone.
- *mangakd*: as it comes, batches of similar length (the order of batches is random). Its window is longer, because batches
  differ in length.
- *stored soft targets*: the same with the teacher's logits read from disk. Writing them once took {store} CPU seconds for the
  15,000 training texts, which are not counted: every further epoch, run and sweep reads them."""


def run(variant: Variant, options: argparse.Namespace, seed: int, cache: str) -> Line:
    """One child process; its JSON line is the last line it prints."""
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = variant.command(options, seed, cache)
    process = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    if process.returncode != 0:
        raise SystemExit(f"{variant.title} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def measure(options: argparse.Namespace) -> Iterator[dict[str, list[Line]]]:
    """The lines so far, after each round."""
    lines: dict[str, list[Line]] = {variant.title: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as cache:
        for seed in range(options.rounds):
            for variant in VARIANTS if seed % 2 == 0 else VARIANTS[::-1]:
                line = run(variant, options, seed, cache)
                lines[variant.title].append(line)
                print(
                    f"round {seed + 1} of {options.rounds}: {variant.title}: {line['samples_per_cpu_s']} samples per CPU "
                    f"second, {line['samples_per_wall_s']} per wall second", flush=True,
                )  # fmt: skip
            yield lines


def summary(lines: dict[str, list[Line]]) -> dict[str, dict[str, float]]:
    """Medians of each variant and its ratios to the base."""

    def median(title: str, key: str) -> float:
        return statistics.median(line[key] for line in lines[title])

    return {
        title: {
            "tokens": round(median(title, "mean_padded_length"), 1),
            "samples_per_cpu_s": round(median(title, "samples_per_cpu_s"), 1),
            "samples_per_wall_s": round(median(title, "samples_per_wall_s"), 1),
            "ratio_cpu": round(median(title, "samples_per_cpu_s") / median(BASE, "samples_per_cpu_s"), 3),
            "ratio_wall": round(median(title, "samples_per_wall_s") / median(BASE, "samples_per_wall_s"), 3),
        }
        for title in lines
    }


def rows(summaries: dict[str, dict[str, float]]) -> list[list[str]]:
    return [
        [
            title, f"{row['tokens']:.1f}", f"{row['samples_per_cpu_s']:.1f}", f"{row['samples_per_wall_s']:.1f}",
            f"{row['ratio_cpu']:.2f}", f"{row['ratio_wall']:.2f}",
        ]
        for title, row in summaries.items()
    ]  # fmt: skip


def versions(lines: dict[str, list[Line]]) -> dict[str, str]:
    frameworks = {line["framework"]: line["version"] for each in lines.values() for line in each}
    torches = {line["torch"] for each in lines.values() for line in each}
    return {**frameworks, "torch": ", ".join(sorted(torches))}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="CLINC150 data_full.json")
    parser.add_argument("--peers-python", required=True, help="a Python with benchmarks/peers/requirements.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="counted steps of a run in random order")
    parser.add_argument("--bucketed-steps", type=int, default=230, help="and of a length-bucketed run")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--name", default=f"peers_{date.today().isoformat()}", help="writes results/NAME.json and .md")
    return parser.parse_args()


def save(lines: dict[str, list[Line]], options: argparse.Namespace) -> tuple[str, Path]:
    """The table, and the file it is in."""
    summaries, rounds = summary(lines), len(lines[BASE])
    header = ("what", "tokens", "samples per CPU s", "samples per wall s", "ratio", "wall ratio")
    body = table(header, rows(summaries))
    store = max(line.get("store_s", 0) for each in lines.values() for line in each)
    content = {"versions": versions(lines), "rounds": rounds, "base": BASE, "summary": summaries, "lines": lines}
    text = f"{body}\n\n{NOTE.format(rounds=rounds, store=store)}"
    return body, write(options.name, "mangakd beside other ways to distil", content, text)


def main() -> None:
    options = parse()
    print(f"{machine()['cpu']}, {machine()['cores']} cores", flush=True)
    for lines in measure(options):  # saved after each round, so that a run that is stopped leaves what it has
        body, file = save(lines, options)
    print(body)
    print(file)


if __name__ == "__main__":
    main()
