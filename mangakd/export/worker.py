"""Run as `python -m mangakd.export.worker job.json`: a variant in a process of its own, which is asked over its pipes.

There a model has its own memory and its own threads, and nothing is warm. Only the runtime is imported, as where it will serve:
no torch, whose threads and memory would be measured with it. All variants are held open at a time and asked in turn, so that
what else the machine does meanwhile slows all of them (mangakd/export/measure.py).
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.numbers import largest_difference
from mangakd.export.spread import spread
from mangakd.runtime.backends import Run, open_model
from mangakd.runtime.manifest import read
from mangakd.runtime.tokenise import Tokeniser

WARM_UP = 5  # of each turn: the caches are another model's by then
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Opened:
    """batch: texts → named arrays (B, T). run: these → float32 (B, C)."""

    batch: Callable[[list[str]], Arrays]
    run: Run


def variant(job: dict[str, Any]) -> Opened:
    manifest = read(job["folder"])
    settings = (manifest.max_length, manifest.pad_id, manifest.pad_type_id, manifest.truncation_side)
    tokeniser = Tokeniser(manifest.tokenizer, *settings)
    return Opened(lambda texts: tokeniser.pad(tokeniser(texts), manifest.inputs), open_model(manifest, job["threads"]))


def serve(file: Path, opener: Callable[[dict[str, Any]], Opened]) -> None:
    """Answer each line of stdin with one on stdout.

    {"score": batch size, "most": n} writes outputs.npy (N, C), of at most n texts, beside the job. {"company": batch size,
    "most": n} gives how far other texts of a batch move an answer. {"length": tokens, "runs": n}
    gives the milliseconds of one text at a time. {"batch": size, "most": n} gives the milliseconds that a text takes in batches.
    """
    # What libraries print must not come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        job = json.loads(file.read_text(encoding="utf-8"))
        started = time.perf_counter()
        model = opener(job)
        print(json.dumps({"load_seconds": time.perf_counter() - started}), file=answers, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            found: dict[str, Any] = {}
            texts = spread(job["texts"], asked.get("most", len(job["texts"])))
            if "score" in asked:
                np.save(file.with_name("outputs.npy"), outputs(model, texts, asked["score"]))
            elif "company" in asked:
                found["moved"] = moved(model, texts, asked["company"])
            elif "batch" in asked:
                found["ms"] = batch_latency(model, texts, asked["batch"])
            else:
                found["ms"] = latency(model.run, row(model, job["texts"], asked["length"]), asked["runs"])
            print(json.dumps({**found, "peak_rss_mb": peak_rss_mb()}), file=answers, flush=True)


def outputs(model: Opened, texts: list[str], size: int) -> np.ndarray:
    """(N, C), `size` texts at a time, in the order given."""
    batches = (model.batch(texts[start : start + size]) for start in range(0, len(texts), size))
    return np.concatenate([model.run(batch) for batch in batches])


def moved(model: Opened, texts: list[str], size: int) -> float:
    """Largest |Δ output| of the first half of each batch where copies of its first row take the place of its second half.

    Shapes, and so kernels and their rounding, stay the same: where no text has a part in another's answer, this is 0.
    """
    largest = 0.0
    for start in range(0, len(texts) - 1, size):
        batch = model.batch(texts[start : start + size])
        half, rest = len(batch["input_ids"]) // 2, -(-len(batch["input_ids"]) // 2)
        other = {name: np.concatenate([rows[:half], rows[:1].repeat(rest, 0)]) for name, rows in batch.items()}
        if half:
            largest = max(largest, largest_difference(model.run(batch)[:half], model.run(other)[:half]))
    return largest


def row(model: Opened, texts: list[str], length: int) -> Arrays:
    """One row of exactly `length` tokens, all real, out of the texts."""
    batches = [model.batch([text]) for text in texts[:length]]
    ids = np.concatenate([batch["input_ids"][batch["attention_mask"] == 1] for batch in batches])
    filled = {"input_ids": np.resize(ids, (1, length)), "attention_mask": np.ones((1, length), dtype=np.int64)}
    return {name: filled.get(name, np.zeros((1, length), dtype=np.int64)) for name in batches[0]}


def latency(run: Run, arrays: Arrays, runs: int) -> list[float]:
    """Milliseconds from token ids to the answer, of one text at a time."""
    times = []
    for _ in range(WARM_UP + runs):
        start = time.perf_counter()
        run(arrays)
        times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UP:]


def batch_latency(model: Opened, texts: list[str], size: int) -> float:
    """Milliseconds that a text takes from token ids to the answer, `size` texts of about one length at a time."""
    ordered = sorted(texts, key=len)
    batches = [model.batch(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    model.run(batches[-1])
    start = time.perf_counter()
    for batch in batches:
        model.run(batch)
    return 1000 * (time.perf_counter() - start) / len(texts)


def peak_rss_mb() -> float:
    """Of this process alone. getrusage would say the parent's peak where that is larger: Linux hands it on to children."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    serve(Path(sys.argv[1]), variant)
