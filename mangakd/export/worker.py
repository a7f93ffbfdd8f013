"""Run as `python -m mangakd.export.worker job.json`: a process that holds one variant and answers questions over its pipes.

In a separate process a model has its own memory and threads, and starts cold. The process imports the runtime only, as a server
does: torch would add threads and memory to the measurement. The processes of all variants are open at once and answer in turns,
so background load affects all of them (mangakd/export/measure.py).
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
from mangakd.runtime.late import OWNER, QUERY, SCORED
from mangakd.runtime.late_model import reader_of
from mangakd.runtime.manifest import read
from mangakd.runtime.tokenise import Text, characters
from mangakd.runtime.writer import Writer

WARM_UP = 5  # runs of each turn: before it, the caches hold another model
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class OpenModel:
    """batch: texts → named arrays (B, T). run: named arrays → float32 (B, C), or token ids (B, N).

    numbers: what tells whether rows depend on each other; None: `run`. Token ids hide small differences.
    """

    batch: Callable[[list[Text]], Arrays]
    run: Run
    numbers: Run | None = None


def variant(job: dict[str, Any]) -> OpenModel:
    manifest = read(job["folder"])
    tokeniser, run = reader_of(manifest), open_model(manifest, job["threads"])
    numbers = run.first_logits if isinstance(run, Writer) else None
    return OpenModel(lambda texts: tokeniser.pad(tokeniser(texts), manifest.inputs), run, numbers)


def serve(file: Path, opener: Callable[[dict[str, Any]], OpenModel]) -> None:
    """Answer each line of stdin with one line on stdout.

    {"score": batch size, "most": n} writes outputs.npy (N, C), of at most n texts, beside the job. {"company": batch size,
    "most": n} gives the largest shift of an answer by other texts of a batch, and the largest answer. {"length": tokens,
    "runs": n} gives the milliseconds of one text at a time; with length 0 those of n texts as they are. {"batch": size,
    "most": n} gives the milliseconds of a text in batches.
    """
    # Redirect the prints of libraries to stderr, so that stdout holds answers only.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        job = json.loads(file.read_text(encoding="utf-8"))
        job["texts"] = [text if isinstance(text, str) else tuple(text) for text in job["texts"]]  # JSON has no tuples
        start = time.perf_counter()
        model = opener(job)
        print(json.dumps({"load_seconds": time.perf_counter() - start}), file=answers, flush=True)
        for line in sys.stdin:
            question = json.loads(line)
            answer: dict[str, Any] = {}
            texts = spread(job["texts"], question.get("most", len(job["texts"])))
            if "score" in question:
                np.save(file.with_name("outputs.npy"), outputs(model, texts, question["score"]))
            elif "company" in question:
                answer["moved"], answer["size"] = largest_shift(model, texts, question["company"])
            elif "batch" in question:
                answer["ms"] = batch_latency(model, texts, question["batch"])
            elif not question["length"]:
                answer["ms"] = latencies(model, spread(job["texts"], question["runs"]))
            else:
                answer["ms"] = latency(model.run, row(model, job["texts"], question["length"]), question["runs"])
            print(json.dumps({**answer, "peak_rss_mb": peak_rss_mb()}), file=answers, flush=True)


def outputs(model: OpenModel, texts: list[Text], size: int) -> np.ndarray:
    """(N, C), `size` texts at a time, in the order given."""
    batches = (model.batch(texts[start : start + size]) for start in range(0, len(texts), size))
    return np.concatenate([model.run(batch) for batch in batches])


def largest_shift(model: OpenModel, texts: list[Text], size: int) -> tuple[float, float]:
    """The largest |Δ output| of the first half of each batch if copies of the first row replace the second half; max |output|.

    Shapes stay the same, and so do kernels and rounding. If no text influences another text's answer, the shift is 0.
    """
    shift, most, run = 0.0, 0.0, model.numbers or model.run
    for start in range(0, len(texts) - 1, size):
        batch = model.batch(texts[start : start + size])
        half, rest = len(batch["input_ids"]) // 2, -(-len(batch["input_ids"]) // 2)
        other = {
            name: rows if name.startswith(QUERY) else np.concatenate([rows[:half], rows[:1].repeat(rest, 0)])
            for name, rows in batch.items()
        }
        if half:
            own = run(batch)[:half]
            shift, most = max(shift, largest_difference(own, run(other)[:half])), max(most, float(np.abs(own).max()))
    return shift, most


def row(model: OpenModel, texts: list[Text], length: int) -> Arrays:
    """One row of exactly `length` real tokens, from the texts; of late interaction a document, beside the first text's query."""
    batches = [model.batch([text]) for text in texts[:length]]
    ids = np.concatenate([batch["input_ids"][batch["attention_mask"] == 1] for batch in batches])
    ones = np.ones((1, length), dtype=np.int64)
    inputs = {"input_ids": np.resize(ids, (1, length)), "attention_mask": ones, SCORED: ones}
    inputs |= {name: rows for name, rows in batches[0].items() if name == OWNER or name.startswith(QUERY)}
    return {name: inputs.get(name, np.zeros_like(ones)) for name in batches[0]}


def latency(run: Run, arrays: Arrays, runs: int) -> list[float]:
    """Milliseconds from token ids to the answer, of one text at a time."""
    return [_milliseconds(run, arrays) for _ in range(WARM_UP + runs)][WARM_UP:]


def latencies(model: OpenModel, texts: list[Text]) -> list[float]:
    """Milliseconds from token ids to the answer of each text."""
    batches = [model.batch([text]) for text in texts]
    return [_milliseconds(model.run, batch) for batch in (batches[0], *batches)][1:]  # the first one warms up


def _milliseconds(run: Run, arrays: Arrays) -> float:
    start = time.perf_counter()
    run(arrays)
    return 1000 * (time.perf_counter() - start)


def batch_latency(model: OpenModel, texts: list[Text], size: int) -> float:
    """Milliseconds of a text from token ids to the answer, in batches of `size` texts of similar length."""
    by_length = sorted(texts, key=characters)
    batches = [model.batch(by_length[start : start + size]) for start in range(0, len(by_length), size)]
    model.run(batches[-1])
    start = time.perf_counter()
    for batch in batches:
        model.run(batch)
    return 1000 * (time.perf_counter() - start) / len(texts)


def peak_rss_mb() -> float:
    """The peak of this process. getrusage also counts the parent's larger peak, which children inherit on Linux."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    serve(Path(sys.argv[1]), variant)
