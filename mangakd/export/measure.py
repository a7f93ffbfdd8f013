"""What a variant answers and what it costs, measured in a fresh process (mangakd/export/worker.py)."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mangakd.core.errors import UserError
from mangakd.export.manifest import read

LENGTHS = (32, 64, 128)  # tokens
RUNS = 100


@dataclass(frozen=True)
class Measured:
    """One variant on one split.

    outputs: (N, C) or (N, D) float32 at the serving batch size. latency_ms: tokens → p50, p95, p99 of one text at a time, from
    token ids to the answer; lengths beyond max_length are left out. megabytes: of the model's files. load_seconds: from the
    manifest to a model that can be asked, hashes compared. peak_rss_mb: of the whole process.
    """

    name: str
    outputs: np.ndarray
    megabytes: float
    load_seconds: float
    peak_rss_mb: float
    latency_ms: Mapping[int, Mapping[str, float]]

    @property
    def milliseconds(self) -> float:
        """The p50 that variants are compared by: of the middle length."""
        lengths = sorted(self.latency_ms)
        return self.latency_ms[lengths[len(lengths) // 2]]["p50"]


def measure(
    folder: Path,
    texts: Sequence[str],
    batch_size: int,
    threads: int = 1,
    lengths: Sequence[int] = LENGTHS,
    runs: int = RUNS,
) -> Measured:
    """Raises UserError for a folder that is no finished variant, for no texts, and where it cannot be served."""
    manifest = read(folder)
    if not texts or min(lengths) > manifest.max_length:
        raise UserError(
            f"{folder.name} cannot be measured on {len(texts)} texts at {min(lengths)} tokens or more: it needs a text, and "
            f"takes up to {manifest.max_length} tokens."
        )
    job = {"folder": str(folder.resolve()), "texts": list(texts), "batch_size": batch_size, "threads": threads}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "job.json"
        file.write_text(json.dumps({**job, "lengths": list(lengths), "runs": runs}), encoding="utf-8")
        _run(file, folder)
        outputs = np.load(file.with_name("outputs.npy"), allow_pickle=False)
        numbers = json.loads(file.with_name("numbers.json").read_text())
    size = sum(path.stat().st_size for path in folder.glob(f"{manifest.model.stem}.*")) / 1e6
    latency = {int(length): found for length, found in numbers["latency_ms"].items()}
    return Measured(manifest.variant, outputs, size, numbers["load_seconds"], numbers["peak_rss_mb"], latency)


def _run(file: Path, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "mangakd.export.worker", str(file)], capture_output=True, text=True)
    if done.returncode:
        reason = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit status {done.returncode}")
        raise UserError(f"{folder} could not be measured in a process of its own: {reason}")
