"""Run as `python -m mangakd.export.worker job.json`: measures one variant in a process of its own.

There a model has its own memory and its own threads, and nothing is warm. Only the runtime is imported, as where it will serve:
no torch, whose threads and memory would be measured with it.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.runtime.backends import Run, open_model
from mangakd.runtime.manifest import Manifest, read
from mangakd.runtime.tokenise import Tokeniser

WARM_UP = 10
PERCENTILES = (50, 95, 99)


def main(file: Path) -> None:
    """Writes outputs.npy (N, C) and numbers.json beside the job."""
    job = json.loads(file.read_text(encoding="utf-8"))
    started = time.perf_counter()
    manifest = read(job["folder"])
    settings = (manifest.max_length, manifest.pad_id, manifest.pad_type_id, manifest.truncation_side)
    tokeniser = Tokeniser(manifest.tokenizer, *settings)
    run = open_model(manifest, job["threads"])
    numbers: dict[str, Any] = {"load_seconds": time.perf_counter() - started}
    texts, size = job["texts"], job["batch_size"]
    batches = (tokeniser(texts[start : start + size]) for start in range(0, len(texts), size))
    outputs = np.concatenate([run(tokeniser.pad(batch, manifest.inputs)) for batch in batches])
    numbers["latency_ms"] = {
        str(length): latency(run, arrays(tokeniser, texts, manifest, length), job["runs"])
        for length in job["lengths"]
        if length <= manifest.max_length
    }
    numbers["peak_rss_mb"] = peak_rss_mb()
    np.save(file.with_name("outputs.npy"), outputs)
    file.with_name("numbers.json").write_text(json.dumps(numbers))


def arrays(tokeniser: Tokeniser, texts: list[str], manifest: Manifest, length: int) -> dict[str, np.ndarray]:
    """One row of exactly `length` tokens, all real, out of the texts."""
    ids = [token for encoding in tokeniser(texts[:length]) for token in encoding.ids]
    row = np.resize(np.array(ids, dtype=np.int64), (1, length))
    ones, zeros = np.ones_like(row), np.zeros_like(row)
    return {name: {"input_ids": row, "attention_mask": ones}.get(name, zeros) for name in manifest.inputs}


def latency(run: Run, row: dict[str, np.ndarray], runs: int) -> dict[str, float]:
    """Milliseconds from token ids to the answer, of one text at a time: p50, p95, p99."""
    times = []
    for _ in range(WARM_UP + runs):
        start = time.perf_counter()
        run(row)
        times.append(1000 * (time.perf_counter() - start))
    found = np.percentile(times[WARM_UP:], PERCENTILES)
    return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, found, strict=True)}


def peak_rss_mb() -> float:
    """Of this process alone. getrusage would say the parent's peak where that is larger: Linux hands it on to children."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    main(Path(sys.argv[1]))
