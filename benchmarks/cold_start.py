"""How long from the start of a process to its first answer, and how long is an answer then, with the CPU that Lambda gives?

    python scripts/benchmark_serving.py runs/first/student runs/first/export/*/

Each exported variant is served by mangakd.runtime, in an environment that is made here and holds only what it needs; beside it
the student itself, in torch and transformers with nothing else to import. All sides take turns, round after round, under each
quota; what is compared is the ratio within a round. A cold start is taken from outside: from the call that starts the process to
the line that holds its first answer. Files are in the page cache: disks and downloads are not measured. Warm answers are asked
one straight after the other, so a process that has spent its share waits, as a function does that is never idle.
Exits with 1 when the runtime imported torch or transformers, or a side gives the first text another label than PyTorch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cpu_quota
import numpy as np
import slim
from cold_start_report import report

from mangakd.runtime.manifest import read

SIDE = Path(__file__).with_name("cold_start_side.py")
TEXTS = ("where is my order number 12345, and when will it arrive at my door?", "where is my order, please? " * 40)
HEAVY = ("torch", "transformers", "lightning", "hydra")
TORCH = "pytorch_fp32"
PERCENTILES = (50, 95, 99)
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Side:
    """start: the command up to the folder. folder: what it opens."""

    name: str
    start: Sequence[str]
    folder: Path
    environment: dict[str, str]

    def command(self, runs: int) -> list[str]:
        return [*self.start, str(self.folder), json.dumps(TEXTS), str(runs)]

    def measure(self, runs: int, processes: Path | None) -> dict[str, Any]:
        """Seconds to the first answer, and what the process says of itself; of its warm answers p50, p95, p99 of each text."""
        command = cpu_quota.within(processes, self.command(runs))
        environment = {**os.environ, **ONE_THREAD, **self.environment}
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            seconds = time.perf_counter() - start
            rest = process.stdout.read()
        if process.returncode:
            raise RuntimeError(f"{self.name} ended with {process.returncode}: {' '.join(command)}")
        result = {"cold_s": seconds, **json.loads(first), **(json.loads(rest) if rest else {})}
        if rest:
            result["warm_ms"] = [np.percentile(times, PERCENTILES).round(2).tolist() for times in result["warm_ms"]]
        return result


def sides(student: Path, variants: Sequence[Path], scratch: Path) -> list[Side]:
    manifests = [read(folder) for folder in variants]
    python = slim.for_runtime(scratch / "slim", sorted({manifest.backend for manifest in manifests}))
    torch, environment = slim.for_torch(scratch / "torch")
    exports = [Side(m.variant, (str(python), "-I", str(SIDE), "runtime"), m.folder.resolve(), {}) for m in manifests]
    return [Side(TORCH, (*torch, str(SIDE), "torch"), student.resolve(), environment), *exports]


def import_times(side: Side) -> dict[str, float]:
    """Milliseconds of each module's own import until the first answer, in this interpreter, where torch could be imported.

    Python lists what an import statement imports, and of a package that importlib imports the modules inside.
    """
    command = [sys.executable, "-X", "importtime", str(SIDE), "runtime", str(side.folder), json.dumps(TEXTS), "0"]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD})
    lines = re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", process.stderr, re.MULTILINE)
    return {name: int(micro) / 1000 for micro, name in lines}


def proof(side: Side) -> dict[str, Any]:
    """heavy: packages of HEAVY that were imported; there should be none."""
    modules = import_times(side)
    packages = dict[str, float]()
    for name, cost in modules.items():
        top = name.partition(".")[0]
        packages[top] = packages.get(top, 0) + cost
    dearest = sorted(packages, key=lambda top: -packages[top])[:5]
    return {
        "modules": len(modules),
        "heavy": [name for name in HEAVY if name in packages],
        "dearest_ms": {top: round(packages[top], 1) for top in dearest},
    }


def measure(them: Sequence[Side], rounds: int, runs: int, megabytes: int | None) -> dict[str, list[dict[str, Any]]]:
    """{side: one measurement a round}; another side begins each round."""
    results: dict[str, list[dict[str, Any]]] = {side.name: [] for side in them}
    with contextlib.ExitStack() as stack:
        group = None if megabytes is None else stack.enter_context(cpu_quota.quota(cpu_quota.share(megabytes)))
        for turn in range(rounds):
            first = turn % len(them)
            for side in [*them[first:], *them[:first]]:
                results[side.name].append(side.measure(runs, group))
                print(
                    f"{megabytes or 'no'} MB, round {turn + 1}: {side.name} {results[side.name][-1]['cold_s']:.2f} s",
                    flush=True,
                )
    return results


def wrong(proofs: dict[str, Any], first: dict[str, Any]) -> list[str]:
    """first: {side: (label, probability)} of the first text."""
    faults = [f"{name} imported {', '.join(one['heavy'])}" for name, one in proofs.items() if one["heavy"]]
    other = [name for name, answer in first.items() if answer[0] != first[TORCH][0]]
    return faults + [f"{name} says {first[name]}, PyTorch {first[TORCH]}" for name in other]


def main() -> None:
    it = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    it.add_argument("student", type=Path, help="Hugging Face folder, which PyTorch serves")
    it.add_argument("variants", type=Path, nargs="+", help="exported folders of that student")
    it.add_argument(
        "--memory", type=int, nargs="+", default=[512, 1024], help="MB of the functions whose CPU share is given"
    )
    it.add_argument("--rounds", type=int, default=5)
    it.add_argument("--runs", type=int, default=100, help="warm answers to each text, each round")
    it.add_argument("--name", default="cold_start", help="of the result")
    options = it.parse_args()
    reason = cpu_quota.refusal()
    quotas = [None] if reason else [*options.memory, None]
    print(f"no CPU quota here ({reason}): measured without" if reason else f"CPU quotas: {quotas}")
    with tempfile.TemporaryDirectory(prefix="mangakd-cold-") as scratch:
        them = sides(options.student, options.variants, Path(scratch))
        proofs = {side.name: proof(side) for side in them[1:]}
        for side in them:
            side.measure(0, None)  # its files are in the page cache from here on, and its bytecode is written
        results = {str(quota): measure(them, options.rounds, options.runs, quota) for quota in quotas}
    first = {name: rounds[0]["said"] for name, rounds in results["None"].items()}
    packages = ("torch", "transformers", "onnxruntime", "openvino", "tokenizers", "numpy")
    content = {
        "versions": {package: version(package) for package in packages},
        "quota_refused": reason, "proof": proofs, "first": first, "measured": results,
    }  # fmt: skip
    report(options.name, content)
    if faults := wrong(proofs, first):
        sys.exit("wrong: " + "; ".join(faults))
