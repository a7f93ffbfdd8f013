"""Rerankers and embedding models: mangakd beside sentence-transformers, samples per second of a training step, in one thread.

    python benchmarks/rank_peers.py --data MEDQUAD --peers-python PATH/TO/python --rounds 3

Runs the scripts in benchmarks/peers as child processes, in turn, so that a machine that slows down slows all. Each run trains one
epoch over the first 1,200 pairs (or texts) of MedQuAD: a part of an epoch would depend on the length of the texts that it met.
The peer runs under its own Python: benchmarks/README.md tells how to make it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from results_file import machine, table, write

PEERS = Path(__file__).resolve().parent / "peers"
THEIRS, OURS = "sentence_transformers_kd.py", "mangakd_rank.py"
VARIANTS = {
    "sentence-transformers": (THEIRS, ["--order", "random"]),
    "sentence-transformers, batches of similar length": (THEIRS, ["--order", "length"]),
    "mangakd, fp32": (OURS, []),
    "sentence-transformers, batches of similar length, bf16": (THEIRS, ["--order", "length", "--bf16"]),
    "mangakd, bf16": (OURS, ["--bf16"]),
}
TASKS = ("rerank", "embedding")
NOTE = """Medians of {rounds} rounds. `ratio` is of samples per CPU second to the first row of the task.

- Equal for all: four layers of MiniLM-L6, MedQuAD's pairs of a question and an answer (or its questions and answers), at most 256
  tokens, steps of 40 pairs (or texts), MSE to scores (or vectors) that a teacher wrote, fused AdamW, one torch thread.
- *sentence-transformers*: CrossEncoderTrainer or SentenceTransformerTrainer as it comes, with MSELoss. *batches of similar
  length*: with a batch sampler of this benchmark that groups texts as transformers' LengthGroupedSampler does.
- *bf16*: matrix products in bf16, which a CPU with bf16 units computes faster. It is what mangakd's command does on such a CPU
  (`hardware.precision=auto`); sentence-transformers has it as an option (`bf16=True`).
- *mangakd*: a step of a reranker is four whole queries of ten documents; their pairs are computed in parts of similar length."""


def run(task: str, variant: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One child process; its JSON line is the last line it prints."""
    script, own = VARIANTS[variant]
    python = sys.executable if script == OURS else options.peers_python
    words = ["--task", task, "--data", options.data, *own]
    words += ["--rows", str(options.rows), "--seed", str(seed)]
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [python, str(PEERS / script), *words], env={**os.environ, **quiet}, capture_output=True, text=True
    )
    if process.returncode != 0:
        raise SystemExit(f"{variant}, {task} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def save(lines: dict[str, dict[str, list[dict[str, Any]]]], options: argparse.Namespace) -> Path:
    rows, ratios = [], {}
    for task, each in lines.items():
        speed = {name: statistics.median(line["samples_per_cpu_s"] for line in runs) for name, runs in each.items()}
        base = speed[next(iter(VARIANTS))]
        ratios[task] = {name: round(value / base, 2) for name, value in speed.items()}
        rows += [[task, name, f"{value:.2f}", f"{value / base:.2f}"] for name, value in speed.items()]
    rounds = min(len(runs) for each in lines.values() for runs in each.values())
    versions = {
        line["framework"]: line["version"] for each in lines.values() for runs in each.values() for line in runs
    }
    text = f"{table(('task', 'what', 'samples per CPU s', 'ratio'), rows)}\n\n{NOTE.format(rounds=rounds)}"
    content = {"versions": versions, "rounds": rounds, "ratios": ratios, "lines": lines}
    return write(options.name, "Rerankers and embedding models beside sentence-transformers", content, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder medquad")
    parser.add_argument("--peers-python", required=True, help="a Python with sentence-transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument(
        "--name", default=f"rank_peers_{date.today().isoformat()}", help="writes results/NAME.json and .md"
    )
    options = parser.parse_args()
    print(f"{machine()['cpu']}, {machine()['cores']} cores", flush=True)
    lines: dict[str, dict[str, list[dict[str, Any]]]] = {task: {name: [] for name in VARIANTS} for task in TASKS}
    for seed in range(options.rounds):
        for task in TASKS:
            for name in VARIANTS if seed % 2 == 0 else [*VARIANTS][::-1]:
                lines[task][name].append(run(task, name, options, seed))
                speed = lines[task][name][-1]["samples_per_cpu_s"]
                print(
                    f"round {seed + 1} of {options.rounds}: {task}, {name}: {speed} samples per CPU second", flush=True
                )
        print(save(lines, options))  # after each round, so that a run that is stopped leaves what it has


if __name__ == "__main__":
    main()
