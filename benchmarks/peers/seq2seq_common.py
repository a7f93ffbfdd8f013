"""What the peers of encoder–decoders share: a model, rows of a conversation and its rewrite, and the clock of common.py.

The model is a folder, of T5's shape and random weights. The rows are JSON lines with `turns` and `rewrite`; a source is the
turns, joined by SEPARATOR, and all of them fit. All sides take steps of as many rows. They differ in the rows that share a step,
so the tokens of the steps inside the window are counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from common import StepClock

LEARNING_RATE = 1e-4
SEPARATOR = " ||| "
SOURCE, TARGET = 256, 64  # tokens at most

__all__ = ["StepClock", "parse", "report", "rows"]


def parse(description: str, variants: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--variant", choices=variants, required=True)
    parser.add_argument("--data", type=Path, required=True, help="file of rows")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="that are measured, after --warmup steps")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bf16 matrix products (autocast); else fp32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    return options


def rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]


def report(
    options: argparse.Namespace, clock: StepClock, framework: str, version: str, losses: list[float], tokens: list[int]
) -> None:
    """Print the run as one JSON line. losses, tokens: of each step; tokens are those of sources and targets without padding."""
    wall, cpu = clock.elapsed()
    count = sum(tokens[clock.warmup : clock.last])
    line = {
        "framework": framework, "version": version, "variant": options.variant, "bf16": options.bf16, "tokens": count,
        "steps": options.steps, "wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "tokens_per_cpu_s": round(count / cpu, 2),
        "cpu_s_per_step": round(cpu / options.steps, 4), "first_losses": [round(loss, 6) for loss in losses[:3]],
        "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(line), flush=True)
