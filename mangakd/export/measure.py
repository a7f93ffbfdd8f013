"""Measures answers, time and memory of variants and of the student, each in a fresh process (mangakd/export/worker.py)."""

import contextlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export.company import TEXTS, WRITTEN, Company, compare
from mangakd.export.manifest import read
from mangakd.export.spread import spread
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.tokenise import Text

LENGTHS = (32, 64, 128)  # tokens
RUNS, TURNS = 100, 5  # runs of each length, divided over the turns
TIMED = 128  # texts for the time in batches
AS_THEY_ARE = 0  # in place of a length: texts that a student reads to write, whose time depends on what it writes
PERCENTILES = (50, 95, 99)
PYTORCH = "pytorch"


@dataclass(frozen=True)
class Measurement:
    """One variant, or the student, on one split.

    outputs: (N, C) or (N, D) float32 as served, or token ids (N, max_new_tokens): in batches, or text by text if rows depend on
    each other. megabytes: of the model's files. load_seconds: imports, check of hashes and loading. peak_rss_mb: of the whole
    process. company: the same texts alone and in batches. latency_ms: tokens → p50, p95, p99 of one text at a time, from token
    ids to the answer; AS_THEY_ARE for a student that writes. batch_ms: median time of a text in batches, as served.
    """

    name: str
    outputs: np.ndarray
    megabytes: float
    load_seconds: float
    peak_rss_mb: float
    company: Company
    latency_ms: Mapping[int, Mapping[str, float]]
    batch_ms: float | None = None

    @property
    def milliseconds(self) -> float:
        """The time that compares variants: the geometric mean of latency (p50 at the middle length) and time in batches."""
        lengths = sorted(self.latency_ms)
        assert self.batch_ms is not None, "measured without latency"
        return math.sqrt(self.latency_ms[lengths[len(lengths) // 2]]["p50"] * self.batch_ms)


@dataclass(frozen=True)
class Subject:
    """A variant or the student. module: the Python module of its process. job: the content of the process's job file."""

    name: str
    module: str
    job: Mapping[str, Any]
    max_length: int
    head: Head
    megabytes: float

    @property
    def writes(self) -> bool:
        return self.head.kind == "tokens"


def of_variant(folder: Path) -> Subject:
    """Raises UserError for a folder that is no finished variant."""
    manifest = read(folder)
    models = [manifest.model.stem, *([] if manifest.decoding is None else [Path(manifest.decoding.model).stem])]
    size = sum(path.stat().st_size for stem in models for path in folder.glob(f"{stem}.*")) / 1e6
    job = {"folder": str(folder.resolve())}
    return Subject(manifest.variant, "mangakd.export.worker", job, manifest.max_length, manifest.head, size)


def of_student(folder: Path, like: Manifest) -> Subject:
    """The Hugging Face folder in PyTorch fp32, with the settings of its variant `like`."""
    source = like.content["source"]
    pooling = {key: source[key] for key in ("pooling", "normalize") if key in source}
    job: dict[str, Any] = {
        "folder": str(folder.resolve()),
        "max_length": like.max_length,
        "pooling": pooling,
        "pairs": like.pairs,
    }
    job |= {
        "max_new_tokens": like.decoding and like.decoding.max_new_tokens,
        "turns": like.turns and like.turns.entry(),
    }
    return Subject(
        PYTORCH, "mangakd.export.worker_torch", job, like.max_length, like.head, source["parameters"] * 4 / 1e6
    )


def measure(
    subjects: Sequence[Subject],
    texts: Sequence[Text],
    batch_size: int,
    threads: int = 1,
    lengths: Sequence[int] = LENGTHS,
    runs: int = RUNS,
    progress: Callable[[str], None] = lambda doing: None,
) -> list[Measurement]:
    """Measure the subjects; returns results in their order. lengths: in tokens; lengths beyond the subjects' limit are skipped.

    If all lengths are beyond the limit, the limit is measured. lengths=() measures no times. progress: called before each
    subject is scored and once before times. Raises UserError without texts, and if a subject fails.
    """
    if not texts:
        raise UserError("variants cannot be measured without a text.")
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_start(each, texts, threads)) for each in subjects]
        for each in workers:
            progress(f"scoring {each.subject.name} on {len(texts)} texts")
            each.score(len(texts), batch_size)
        most = min(each.max_length for each in subjects)
        fitting = [length for length in lengths if length <= most] or list(lengths and [most])
        if fitting and any(each.writes for each in subjects):
            fitting = [AS_THEY_ARE]
        if fitting:
            progress(f"latency at {', '.join(map(str, fitting))} tokens" if any(fitting) else "latency")
        latencies = _latencies(workers, fitting, runs)
        batches = _batch_latencies(workers) if fitting else [None for _ in workers]
        return [
            Measurement(
                each.subject.name, each.outputs, each.subject.megabytes, each.load_seconds, each.peak_rss_mb, each.company,
                own, batch_ms,
            )
            for each, own, batch_ms in zip(workers, latencies, batches, strict=True)
        ]  # fmt: skip


def _latencies(workers: Sequence["_Worker"], lengths: Sequence[int], runs: int) -> list[dict[int, dict[str, float]]]:
    """Interleave the models and reverse the order each round, so background load affects all of them equally."""
    times: list[dict[int, list[float]]] = [{length: [] for length in lengths} for _ in workers]
    for turn in range(TURNS):
        for length in lengths:
            for i in range(len(workers))[:: 1 if turn % 2 == 0 else -1]:
                times[i][length] += workers[i].ask(length=length, runs=-(-runs // TURNS))["ms"]
    return [{length: _percentiles(own_times) for length, own_times in own.items()} for own in times]


def _batch_latencies(workers: Sequence["_Worker"]) -> list[float]:
    """Interleaved as in `_latencies`."""
    times: list[list[float]] = [[] for _ in workers]
    for turn in range(TURNS):
        for i in range(len(workers))[:: 1 if turn % 2 == 0 else -1]:
            times[i].append(workers[i].ask(batch=workers[i].size, most=TIMED)["ms"])
    return [float(np.median(own)) for own in times]


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    values = np.percentile(times, PERCENTILES)
    return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, values, strict=True)}


@dataclass
class _Worker:
    """A process that holds one subject. scratch: its folder, with its stderr. size: of the batches that it serves."""

    subject: Subject
    process: "subprocess.Popen[str]"
    scratch: Path
    load_seconds: float = 0.0
    peak_rss_mb: float = 0.0
    size: int = 1
    outputs: np.ndarray = field(init=False)
    company: Company = field(init=False)

    def score(self, texts: int, batch_size: int) -> None:
        """Fill `outputs`, `size` and `company`. texts: the number of texts of the process."""
        self.size, self.outputs = batch_size, self._answers(batch_size, texts)
        most = WRITTEN if self.subject.writes else TEXTS
        together = self.outputs[spread(range(texts), most)]
        told = self.ask(company=max(batch_size, 2), most=most)
        self.company = compare(self._answers(1, most), together, told["moved"], self.subject.head, told["size"])
        if not self.company.independent:
            self.size, self.outputs = 1, self._answers(1, texts)

    def _answers(self, batch_size: int, most: int) -> np.ndarray:
        self.ask(score=batch_size, most=most)
        return np.load(self.scratch / "outputs.npy", allow_pickle=False)

    def ask(self, **question: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has died; `answer` reports the reason
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        answer = self.answer()
        self.peak_rss_mb = answer["peak_rss_mb"]
        return answer

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        status = self.process.wait()  # the pipe closes before the error is written
        lines = (self.scratch / "stderr").read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {status}"
        raise UserError(f"{self.subject.job['folder']} could not be measured in its process: {reason}")


@contextlib.contextmanager
def _start(subject: Subject, texts: Sequence[Text], threads: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        file = scratch / "job.json"
        file.write_text(json.dumps({**subject.job, "texts": list(texts), "threads": threads}), encoding="utf-8")
        command = [sys.executable, "-m", subject.module, str(file)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (scratch / "stderr").open("w") as stderr, subprocess.Popen(command, stderr=stderr, **pipes) as process:
            try:
                worker = _Worker(subject, process, scratch)
                worker.load_seconds = worker.answer()["load_seconds"]
                yield worker
            finally:
                process.kill()
