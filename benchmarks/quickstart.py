"""How far does another seed or another CPU move a quickstart's scores? Runs the quickstart from scratch, run after run.

    python benchmarks/quickstart.py --work PATH [--sides own avx2] [--seeds 0 1 2 3 4] [--experiment rerank_quickstart]

Each run is `python train.py experiment=quickstart` in a process and with a cache of its own, so it fine-tunes its own teacher. A
seed chooses everything that is chance: which rows have labels, the teacher's fine-tuning, the student's batches and
dropout. Sides: `own`, the CPU as it is; `avx2`, the same CPU with torch kept to AVX2, in fp32; `fp32`, the CPU as it is in
fp32, which is what `own` is timed against. A run that ended is in results/<experiment>.json and is not made again; one that
was stopped starts anew, because its CPU seconds are counted whole.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from results_file import RESULTS, table, write

Format = Callable[[Sequence[dict[str, Any]]], str]  # runs → a cell
ROOT = Path(__file__).resolve().parents[1]
SIDES: dict[str, tuple[dict[str, str], list[str]]] = {  # environment, overrides
    "own": ({}, []),
    "avx2": ({"ATEN_CPU_CAPABILITY": "avx2"}, []),
    "fp32": ({}, ["hardware.precision=32-true"]),
}
SCORES = (
    "teacher/test/accuracy",
    "baseline/test/accuracy",
    "test/accuracy",
    "test/retention",
    "test/agreement",
    "test/ece",
)
MAIN = {"rerank_quickstart": "ndcg_exp@3", "embedding_quickstart": "ndcg@10"}  # the score of an experiment of search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs and their caches")
    parser.add_argument("--experiment", choices=["quickstart", *MAIN], default="quickstart")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["own", "avx2"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    for seed in options.seeds:
        for side in options.sides:
            if f"{side}_{seed}" not in runs(options.experiment):
                folder = options.work / f"{side}_{seed}"
                keep(options.experiment, f"{side}_{seed}", run(options.experiment, side, seed, folder))


def run(experiment: str, side: str, seed: int, folder: Path) -> dict[str, Any]:
    """One quickstart: its scores, its gate and its CPU seconds."""
    environment, overrides = SIDES[side]
    seconds = train([f"experiment={experiment}", *chance(seed), *overrides], folder, environment)
    report = (folder / "report.md").read_text()
    gate = next(line for line in report.splitlines() if line.startswith("Gate:"))
    values = scores(folder) if experiment not in MAIN else search_scores(folder, MAIN[experiment])
    return {"side": side, "seed": seed, "cpu_seconds": seconds, "scores": values, "gate": gate}


def chance(seed: int) -> list[str]:
    """Overrides that set all seeds to one seed."""
    return [f"seed={seed}", f"teacher.seeds=[{seed}]", f"data.split_seed={seed}"]


def train(overrides: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Train from scratch with an empty cache; returns CPU seconds. Raises CalledProcessError; the log is beside `folder`."""
    cache = folder.with_name(f"{folder.name}.cache")
    for old in (folder, cache):
        shutil.rmtree(old, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = ["train.py", *overrides, f"hydra.run.dir={folder}", f"paths.cache={cache}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment}
    before = cpu_seconds()
    with folder.with_name(f"{folder.name}.log").open("w") as log:
        subprocess.run([sys.executable, *words], cwd=ROOT, env=env, stdout=log, stderr=log, check=True)
    shutil.rmtree(cache)
    return cpu_seconds() - before


def scores(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: metrics[key] for key in SCORES if key in metrics}


def search_scores(folder: Path, main: str) -> dict[str, float]:
    """Model → its main score on test, of all models in the tables."""
    metrics = json.loads((folder / "metrics.json").read_text())
    ends = {key.removesuffix(f"test/{main}").strip("/"): key for key in metrics if key.endswith(f"test/{main}")}
    return {name.rpartition("/")[2] or "student": metrics[key] for name, key in ends.items()}


def cpu_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def runs(name: str = "quickstart") -> dict[str, Any]:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text())["runs"] if file.is_file() else {}


def keep(experiment: str, name: str, row: dict[str, Any]) -> None:
    """Add a run to results/<experiment>.json and rewrite the tables."""
    rows = dict(sorted({**runs(experiment), name: row}.items()))
    text = body(list(rows.values())) if experiment not in MAIN else search_body(experiment, list(rows.values()))
    title = experiment.replace("_", " ").capitalize()
    write(experiment, title, {"versions": versions(), "runs": rows}, text)


def versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "lightning", "transformers")}


def body(rows: Sequence[dict[str, Any]]) -> str:
    gates = sorted({row["gate"] for row in rows})
    return (
        "`experiment=quickstart`, test accuracy on 2,000 rows. Means over seeds, and the lowest and highest seed. A seed "
        "chooses the labelled utterances, the teacher's fine-tuning and the student's batches. `own`: the CPU as it is; "
        "`avx2`: torch kept to AVX2, in fp32; `fp32`: the CPU as it is, in fp32.\n\n"
        f"{tables(rows, COLUMNS)}\n\nGate lines found:\n\n" + "\n".join(f"- {gate}" for gate in gates)
    )


def search_body(experiment: str, rows: Sequence[dict[str, Any]]) -> str:
    names = {
        "teacher": "teacher",
        "without KD": "baseline",
        "student": "student",
        "BM25": "BM25",
        "untrained": "untrained student",
    }
    columns = {title: column(score(name), ".3f") for title, name in names.items() if name in rows[0]["scores"]}
    columns["gain"] = column(lambda row: row["scores"]["student"] - row["scores"]["baseline"], "+.3f")
    return (
        f"`experiment={experiment}`, test {MAIN[experiment]}. Means over seeds, with the lowest and the highest where there are "
        "several. A seed chooses the rows and those with labels, the teacher's fine-tuning and the student's batches. *Gain*: "
        "the student over the same student without KD. *Untrained*: the teacher's layers as they are.\n\n"
        f"{tables(rows, {**columns, 'CPU minutes': MINUTES})}"
    )


def tables(rows: Sequence[dict[str, Any]], columns: Mapping[str, Format]) -> str:
    """Means over seeds for each side, then run by run."""
    sides = {name: [row for row in rows if row["side"] == name] for name in dict.fromkeys(row["side"] for row in rows)}
    means = [[name, str(len(rows)), *(cell(rows) for cell in columns.values())] for name, rows in sides.items()]
    single = [[f"{row['side']}, seed {row['seed']}", *(cell([row]) for cell in columns.values())] for row in rows]
    return f"{table(['', 'seeds', *columns], means)}\n\n{table(['', *columns], single)}"


def column(value: Callable[[dict[str, Any]], float], form: str) -> Format:
    """The mean of `value` over rows, with its range where there are several."""

    def cell(rows: Sequence[dict[str, Any]]) -> str:
        values = [value(row) for row in rows]
        ends = f" ({min(values):{form}} to {max(values):{form}})" if len(rows) > 1 else ""
        return f"{np.mean(values):{form}}{ends}"

    return cell


def score(key: str) -> Callable[[dict[str, Any]], float]:
    return lambda row: row["scores"][key]


def gain(row: dict[str, Any]) -> float:
    return 100 * (row["scores"]["test/accuracy"] - row["scores"]["baseline/test/accuracy"])


TEACHER, STUDENT = column(score("teacher/test/accuracy"), ".1%"), column(score("test/accuracy"), ".1%")
AGREEMENT, MINUTES = column(score("test/agreement"), ".1%"), column(lambda row: row["cpu_seconds"] / 60, ".1f")
COLUMNS = {
    "teacher": TEACHER, "without KD": column(score("baseline/test/accuracy"), ".1%"), "student": STUDENT,
    "gain, points": column(gain, "+.1f"), "retention": column(score("test/retention"), ".3f"), "agreement": AGREEMENT,
    "CPU minutes": MINUTES,
}  # fmt: skip

if __name__ == "__main__":
    main()
