"""Language models: mangakd beside TRL, tokens per CPU second of a training step, in one thread.

    python benchmarks/token_peers.py --data GSM8K --peers-python PATH/TO/python --rounds 3

Runs the scripts in benchmarks/peers as child processes, in turn. Each trains one epoch over the first 128 conversations of GSM8K:
the first 10 layers of SmolLM2-135M learn from all 30 by forward KL. `teacher.path=embedded_lm` tells what the teacher needs
(docs/how-to/installation.md); the peer runs under its own Python: benchmarks/README.md tells how to make it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from peer_runs import PEERS, Line, child, measure, median, parse, ratios, save

from mangakd.models.embedded_lm import NAME
from mangakd.models.location import locate

THEIRS, OURS = "trl_kd.py", "mangakd_tokens.py"
VARIANTS = {
    "GKDTrainer": (THEIRS, ["--variant", "gkd"]),
    "GKDTrainer, similar lengths": (THEIRS, ["--variant", "gkd", "--by-length"]),
    "DistillationTrainer": (THEIRS, ["--variant", "distillation"]),
    "mangakd, live teacher": (OURS, ["--variant", "live"]),
    "mangakd, stored teacher": (OURS, ["--variant", "stored"]),
    "GKDTrainer, similar lengths, bf16": (THEIRS, ["--variant", "gkd", "--by-length", "--bf16"]),
    "mangakd, live teacher, bf16": (OURS, ["--variant", "live", "--bf16"]),
    "mangakd, stored teacher, bf16": (OURS, ["--variant", "stored", "--bf16"]),
}
NOTE = """Medians of {rounds} rounds. `ratio` is of tokens per CPU second to the first row. Tokens are those of prompts and
answers, without padding.

- Equal for all: 10 layers of SmolLM2-135M taught by all 30 (V 49,152), GSM8K's conversations, steps of 8 of them, forward KL
  alone, AdamW, no clipping, one torch thread.
- *GKDTrainer*: `lmbda=0`, `beta=0`, batches in random order; *similar lengths*: its option `group_by_length`.
- *DistillationTrainer*: `beta=0`; it lets the student write all answers, so it is handed those of the data in their place.
- *mangakd*: batches of similar length, as it comes. *stored*: 64 tokens and the mass of all others at each position, in memory.
- *bf16*: matrix products in bf16 (`hardware.precision=auto` has it on a CPU with bf16 units)."""


def save_all(lines: dict[str, list[Line]], name: str) -> Path:
    speeds = {title: median(each, "tokens_per_cpu_s") for title, each in lines.items()}
    own = ratios(speeds)
    rows = [[title, f"{speed:.1f}", f"{own[title]:.2f}"] for title, speed in speeds.items()]
    return save(name, "Language models beside TRL", lines, own, ("what", "tokens per CPU s", "ratio"), rows, NOTE)


def main() -> None:
    options = parse(__doc__.splitlines()[0], "gsm8k", "trl", 128, "token_peers")
    teacher = locate(NAME)

    def run(title: str, seed: int) -> Line:
        script, own = VARIANTS[title]
        words = ["--data", options.data, "--teacher", teacher, "--rows", str(options.rows), "--seed", str(seed), *own]
        python = sys.executable if script == OURS else options.peers_python
        return child(title, [python, str(PEERS / script), *words])

    for lines in measure([*VARIANTS], options.rounds, run, "tokens_per_cpu_s"):
        print(save_all(lines, options.name))  # after each round, so that a run that is stopped leaves what it has


if __name__ == "__main__":
    main()
