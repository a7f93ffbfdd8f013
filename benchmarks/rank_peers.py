"""Rerankers and embedding models: mangakd beside sentence-transformers, samples per second of a training step, in one thread.

    python benchmarks/rank_peers.py --data MEDQUAD --peers-python PATH/TO/python --rounds 3

Runs the scripts in benchmarks/peers as child processes, in turn, so that a machine that slows down slows all. Each run trains one
epoch over the first 1,200 pairs (or texts) of MedQuAD: a part of an epoch would depend on the length of the texts that it met.
The peer runs under its own Python: benchmarks/README.md tells how to make it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from peer_runs import PEERS, Line, child, measure, median, parse, ratios, save

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


def save_all(lines: dict[str, list[Line]], name: str) -> Path:
    rows, own = [], {}
    for task in TASKS:
        speeds = {variant: median(lines[f"{task}: {variant}"], "samples_per_cpu_s") for variant in VARIANTS}
        own[task] = ratios(speeds)
        rows += [[task, each, f"{speed:.2f}", f"{own[task][each]:.2f}"] for each, speed in speeds.items()]
    title = "Rerankers and embedding models beside sentence-transformers"
    return save(name, title, lines, own, ("task", "what", "samples per CPU s", "ratio"), rows, NOTE)


def main() -> None:
    options = parse(__doc__.splitlines()[0], "medquad", "sentence-transformers", 1200, "rank_peers")
    titles = [f"{task}: {name}" for task in TASKS for name in VARIANTS]
    for lines in measure(titles, options.rounds, lambda *which: run(*which, options), "samples_per_cpu_s"):
        print(save_all(lines, options.name))  # after each round, so that a run that is stopped leaves what it has


if __name__ == "__main__":
    main()
