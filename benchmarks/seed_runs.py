"""Runs of train.py over recipes and seeds, for benchmarks that take hours: a stopped run goes on, a finished run is left out.

A finished run is an entry of results/<name>.json, so that intervals can be computed again without the runs. An entry that is
removed is trained again. Intervals are of the bootstrap over test rows, each row's value being the mean over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from results_file import RESULTS, write

from mangakd.evaluation.bootstrap import Estimate, bootstrap
from mangakd.evaluation.statistics import mean

ROOT = Path(__file__).resolve().parents[1]
PATHS = (
    "data.path=",
    "data.val_path=",
    "data.test_path=",
    "paths.cache=",
    "hydra.run.dir=",
    "teacher.path=",
    "student.path=",
)


def parsed(
    doc: str | None, data: str, recipes: Collection[str], more: Mapping[str, tuple[Any, str]] | None = None
) -> argparse.Namespace:
    """The words of such a benchmark. data: what --data is. more: words of its own → default and help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=data)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs and the cache")
    parser.add_argument("--only", nargs="+", choices=recipes, default=list(recipes))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--source", type=Path, default=ROOT, help="folder of train.py: a copy, when this one is edited")
    for name, (default, what) in (more or {}).items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=what)
    return parser.parse_args()


def train(folder: Path, words: Sequence[str], script: str = "train.py", source: Path = ROOT) -> None:
    """Raises CalledProcessError when the run fails; its log lies beside its folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    full = [sys.executable, script, "resume=auto", *words, f"hydra.run.dir={folder}"]
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        subprocess.run(full, cwd=source, env=env, stdout=log, stderr=log, check=True)


def runs_of(name: str) -> dict[str, Any]:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text())["runs"] if file.is_file() else {}


def keep(name: str, title: str, key: str, run: Any, body: Callable[[Mapping[str, Any]], str]) -> None:
    """Add a run to results/<name>.json and rewrite the page."""
    runs = dict(sorted((runs_of(name) | {key: run}).items()))
    versions = {package: version(package) for package in ("torch", "lightning", "transformers")}
    write(name, title, {"versions": versions, "runs": runs}, body(runs))


def command(folder: Path) -> str:
    """The run's command without paths of the machine."""
    words = shlex.split((folder / "command.txt").read_text())
    return shlex.join(re.sub(r"(?<=[=\[,])/[^\],]*/", "PATH/TO/", word) for word in words if not word.startswith(PATHS))


def by_recipe(runs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """recipe → its runs. A run's key is <recipe>_<seed>."""
    groups: dict[str, list[Any]] = {}
    for key, run in runs.items():
        groups.setdefault(key.rpartition("_")[0], []).append(run)
    return groups


def estimates(values: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """name → (N) values of rows → the mean with its interval; all share the resamples."""
    return bootstrap({name: mean(each, most=1) for name, each in values.items()})


def text(estimate: Estimate, form: str = "{:.3f}") -> str:
    low, high = estimate.interval
    return f"{form} ({form} to {form})".format(estimate.value, low, high)
