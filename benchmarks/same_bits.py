"""Does a refactor keep the numbers? The same short runs in two checkouts, their weights and metrics compared bit by bit.

    git worktree add /tmp/before COMMIT
    python benchmarks/same_bits.py --before /tmp/before --work /tmp/same_bits

Each run takes MiniLM's embedded encoder and a little of the synthetic corpus, in fp32 and with one thread. A run that is in
`work` is not repeated. Exits with 1 when a weight, a metric or an exported answer differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from results_file import table, write
from safetensors.numpy import load_file

AFTER = Path(__file__).resolve().parents[1]
SHORT = [f"stages.{name}.epochs=1" for name in ("features", "soft_targets")]
SMALL = [
    "data=manga_intent", "data.train_limit=200", "data.val_limit=60", "data.test_limit=100", "hardware.precision=32-true",
    "hardware.batch_size=16", "teacher.fit.epochs=5", "baseline=true", "logger=[]", "resume=auto", "seed=0",
]  # fmt: skip
ONE = ["hardware=cpu", *SMALL]
RUNS = {
    "quickstart": ["experiment=quickstart", *ONE, "data.unlabelled=200"],
    "two_stage": ["stages=two_stage", "student=tinybert_4l_312d", *ONE, *SHORT],
    "cached": ["teacher=cached", *ONE],
    "ensemble": ["stages=ensemble_to_one", *ONE, "teacher.seeds=[0,1]"],
    "cpu_ddp": ["hardware=cpu_ddp", *SMALL],
    "quantised": ["stages=quantised", *ONE],
    "export": [*ONE, "export=[onnx]", "export.onnx.variants=[onnx_fp32,onnx_int8]"],
}  # fmt: skip
# Time and what is measured in it.
TIMED = ("seconds", "samples_per_second")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--before", type=Path, required=True, help="a checkout of the commit to compare with")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    options.add_argument("--name", default="same_bits", help="of the files in results/")
    arguments = options.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for name in arguments.runs:
        before, after = (run(root, name, arguments.work.absolute()) for root in (arguments.before.resolve(), AFTER))
        results[name] = compare(before, after)
        print(name, results[name], flush=True)
    commits = {side: commit(root) for side, root in (("before", arguments.before), ("after", AFTER))}
    versions = {package: version(package) for package in ("torch", "transformers", "lightning")}
    content = {"versions": versions, "commits": commits, "commands": RUNS, "runs": results}
    print(write(arguments.name, "Same seed, same bits", content, body(results, commits)).read_text(encoding="utf-8"))
    if any(each["largest"] or each["metrics_differ"] for each in results.values()):
        sys.exit(1)


def run(root: Path, name: str, work: Path) -> Path:
    """The folder of the run, made by the checkout at `root`."""
    folder = work / commit(root) / name
    if not (folder / "metrics.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        words = [*RUNS[name], f"hydra.run.dir={folder}", f"paths.cache={work / commit(root) / 'cache'}"]
        # One cache a checkout: a teacher or store of the other one would hide what making it changes.
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with (folder.parent / f"{name}.log").open("w") as log:
            subprocess.run(
                [sys.executable, root / "train.py", *words],
                cwd=root,
                env=environment,
                stdout=log,
                stderr=log,
                check=True,
            )
    return folder


def commit(root: Path) -> str:
    """Short hash of a checkout's commit, with a + when files differ from it."""
    git = ["git", "-C", str(root)]
    name = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    return name + ("+" if changes else "")


def compare(before: Path, after: Path) -> dict[str, Any]:
    """The largest difference of a student's weight or of a predicted logit, and the metrics that differ."""
    one, other = (arrays(folder) for folder in (before, after))
    gaps = [float(np.abs(one[name] - other[name]).max()) for name in one]
    assert one.keys() == other.keys() and gaps
    metrics = [drop_times(json.loads((folder / "metrics.json").read_text())) for folder in (before, after)]
    both = metrics[0].keys() & metrics[1].keys()
    return {
        "arrays": len(one),
        "largest": max(gaps),
        "metrics": len(both),
        "metrics_differ": sorted(name for name in both if metrics[0][name] != metrics[1][name]),
        "metrics_of_one_side": sorted(metrics[0].keys() ^ metrics[1].keys()),
    }


def arrays(run: Path) -> dict[str, np.ndarray]:
    """The student's weights and everybody's test logits, in float64."""
    files = [load_file(run / "student" / "model.safetensors"), dict(np.load(run / "predictions" / "test.npz"))]
    known = {
        re.sub("^logits/(.*)", r"answers/\1/logits", name): a for file in files for name, a in file.items()
    }  # older files
    return {name: np.asarray(a, np.float64) for name, a in known.items() if a.dtype.kind == "f"}


def drop_times(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(TIMED)}


def body(results: dict[str, dict[str, Any]], commits: dict[str, str]) -> str:
    header = ("run", "arrays", "largest difference of a weight or logit", "metrics", "metrics that differ")
    rows = [
        (
            name,
            str(each["arrays"]),
            f"{each['largest']:g}",
            str(each["metrics"]),
            ", ".join(each["metrics_differ"]) or "none",
        )
        for name, each in results.items()
    ]
    text = f"Commit `{commits['before']}` against `{commits['after']}`, same command and seed. Metrics: all but times."
    return f"{text}\n\n{table(header, rows)}"


if __name__ == "__main__":
    main()
