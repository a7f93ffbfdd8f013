"""mangakd beside other ways to distil: samples per second of a training step, in one thread.

    python benchmarks/peers.py --data PATH --peers-python PATH/TO/python --rounds 3 --steps 40 --bucketed-steps 230

Runs the scripts in benchmarks/peers as child processes, all of them once a round and in turn, so that a machine that slows
down slows all. The peers run under their own Python (benchmarks/README.md tells how to make it), mangakd under this one.
What is counted, and what is equal for everyone, is in peers/common.py. Each round has its own order of texts (its seed).

A ratio is of the medians of samples per CPU second, to the Hugging Face Trainer padded to 64 tokens with a live teacher.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from peer_runs import PEERS, Line, child, measure, median, versions
from results_file import machine, table, write


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


def summary(lines: dict[str, list[Line]]) -> dict[str, dict[str, float]]:
    """Medians of each variant and its ratios to the base."""
    base = lines[BASE]
    return {
        title: {
            "tokens": round(median(each, "mean_padded_length"), 1),
            "samples_per_cpu_s": round(median(each, "samples_per_cpu_s"), 1),
            "samples_per_wall_s": round(median(each, "samples_per_wall_s"), 1),
            "ratio_cpu": round(median(each, "samples_per_cpu_s") / median(base, "samples_per_cpu_s"), 3),
            "ratio_wall": round(median(each, "samples_per_wall_s") / median(base, "samples_per_wall_s"), 3),
        }
        for title, each in lines.items()
    }


def rows(summaries: dict[str, dict[str, float]]) -> list[list[str]]:
    return [
        [
            title, f"{row['tokens']:.1f}", f"{row['samples_per_cpu_s']:.1f}", f"{row['samples_per_wall_s']:.1f}",
            f"{row['ratio_cpu']:.2f}", f"{row['ratio_wall']:.2f}",
        ]
        for title, row in summaries.items()
    ]  # fmt: skip


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
    variants = {variant.title: variant for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as cache:

        def run(title: str, seed: int) -> Line:
            return child(title, variants[title].command(options, seed, cache))

        for lines in measure([*variants], options.rounds, run, "samples_per_cpu_s"):
            body, file = save(lines, options)  # after each round, so that a run that is stopped leaves what it has
    print(body)
    print(file)


if __name__ == "__main__":
    main()
