"""Rerankers and embedding models: mangakd beside sentence-transformers, samples per second of a training step, in one thread.

    python benchmarks/rank_peers.py --data MEDQUAD --peers-python PATH/TO/python --rounds 3

Runs the scripts in benchmarks/peers as child processes, in turn, so that a machine that slows down slows all. Each run trains one
epoch over the first 1,200 pairs (or texts) of MedQuAD: a part of an epoch would depend on the length of the texts that it met.
The peer runs under its own Python: benchmarks/README.md tells how to make it.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

from peer_runs import PEERS, Line, child, measure, median, versions
from results_file import machine, table, write

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


def run(title: str, seed: int, options: argparse.Namespace) -> Line:
    task, _, variant = title.partition(": ")
    script, own = VARIANTS[variant]
    python = sys.executable if script == OURS else options.peers_python
    words = ["--task", task, "--data", options.data, *own, "--rows", str(options.rows), "--seed", str(seed)]
    return child(title, [python, str(PEERS / script), *words])


def save(lines: dict[str, list[Line]], options: argparse.Namespace) -> Path:
    rows, ratios = [], {}
    for task in TASKS:
        speed = {name: median(lines[f"{task}: {name}"], "samples_per_cpu_s") for name in VARIANTS}
        base = speed[next(iter(VARIANTS))]
        ratios[task] = {name: round(value / base, 2) for name, value in speed.items()}
        rows += [[task, name, f"{value:.2f}", f"{value / base:.2f}"] for name, value in speed.items()]
    rounds = min(map(len, lines.values()))
    text = f"{table(('task', 'what', 'samples per CPU s', 'ratio'), rows)}\n\n{NOTE.format(rounds=rounds)}"
    content = {"versions": versions(lines), "rounds": rounds, "ratios": ratios, "lines": lines}
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
    titles = [f"{task}: {name}" for task in TASKS for name in VARIANTS]
    for lines in measure(titles, options.rounds, lambda *which: run(*which, options), "samples_per_cpu_s"):
        print(save(lines, options))  # after each round, so that a run that is stopped leaves what it has


if __name__ == "__main__":
    main()
