"""What the peers of language models share: models, conversations, and the clock of common.py.

The teacher is a folder of a causal language model, the student its first layers, read anew. The data is GSM8K: a question and an
answer, written by the tokenizer's chat template. The window is one epoch but for the first step, so that all meet the same texts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from common import StepClock
from transformers import AutoModelForCausalLM, AutoTokenizer

LEARNING_RATE = 1e-5
MAX_LENGTH = 512

__all__ = ["StepClock", "parse", "report", "rows", "student"]


def parse(description: str, variants: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--variant", choices=variants, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the folder gsm8k")
    parser.add_argument("--teacher", required=True, help="folder of the teacher")
    parser.add_argument("--layers", type=int, default=10, help="of the student: the teacher's first")
    parser.add_argument("--batch-size", type=int, default=8, help="conversations")
    parser.add_argument("--rows", type=int, default=128, help="the first conversations; one epoch of them is measured")
    parser.add_argument("--by-length", action="store_true", help="batches of conversations of similar length")
    parser.add_argument("--bf16", action="store_true", help="bf16 matrix products (autocast); else fp32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.warmup, options.steps = 1, options.rows // options.batch_size - 1
    return options


def rows(options: argparse.Namespace) -> list[tuple[str, str]]:
    """(question, answer)."""
    with (options.data / "train.jsonl").open(encoding="utf-8") as file:
        every = [json.loads(line) for line, _ in zip(file, range(options.rows), strict=False)]
    return [(each["question"], each["answer"]) for each in every]


def student(options: argparse.Namespace, scratch: str) -> str:
    """The first layers of the teacher as a folder."""
    place = str(Path(scratch) / "student")
    AutoModelForCausalLM.from_pretrained(options.teacher, num_hidden_layers=options.layers).save_pretrained(place)
    AutoTokenizer.from_pretrained(options.teacher).save_pretrained(place)
    return place


def report(
    options: argparse.Namespace, clock: StepClock, framework: str, version: str, losses: list[float], tokens: int
) -> None:
    """Print the run as one JSON line. tokens: of the conversations inside the window, without padding. losses: of each step."""
    wall, cpu = clock.elapsed()
    line = {
        "framework": framework, "version": version, "variant": options.variant, "by_length": options.by_length,
        "bf16": options.bf16, "tokens": tokens, "wall_s": round(wall, 3), "cpu_s": round(cpu, 3),
        "tokens_per_cpu_s": round(tokens / cpu, 2), "first_losses": [round(loss, 6) for loss in losses[:3]],
        "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(line), flush=True)
