"""How much does distillation gain? Compares recipes with the same student without a teacher, for equal steps, over seeds.

    python benchmarks/recipes.py --data ../shared/data/clinc150/data_full.json --work PATH [--only two_stage] [--seeds 0 1]

Each run is `python train.py …` in PATH/<recipe>_<seed>: one that was stopped goes on, one in the results is left out. After
each, its scores and which test rows it got right are kept in results/recipes.json, so that all intervals can be computed again
without the runs, and results/recipes.md is written anew. Two of these may run side by side on the same PATH, with other recipes.
The student: BERT of 4 layers of 312, random weights (`start` in a name, `lever_…`, `with_…`: started from the teacher).
recipe_list.py has the recipes, as many steps of 64 texts each as the run without KD beside them: about 4,700, `short_…`,
`start_…`, `lever_…` and `with_…` 1,410, `few_…` 2,350, `adaptive_…` 940, `medquad_…` 640; of 32 texts `manga_…` 1,564,
`ensemble_…` 1,000 and `ensemble_long_…` 2,000. Learning rates are tuned on validation with seed 0 (`--tune`, `lever_lr…`).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medquad import write_types
from recipe_list import COMMON, RECIPES
from recipe_table import body
from results_file import RESULTS, write

from mangakd.evaluation import predictions
from mangakd.evaluation.statistics import Answers, divergence
from mangakd.tasks.classification.mistakes import rare_mask

ROOT = Path(__file__).resolve().parents[1]
SCORES = (
    "test/accuracy",
    "test/agreement",
    "test/kl",
    "test/ece",
    "test/retention",
    "teacher/test/accuracy",
    "train/steps",
    "val/accuracy",
    "run/seconds",
)

OTHERS = ("members/test/accuracy",)  # of ensembles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150's data_full.json")
    parser.add_argument("--medquad", type=Path, help="MedQuAD's folder, for medquad_…")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs and the cache")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tune", nargs="+", type=float, help="learning rates to try with the first seed")
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="folder of train.py: a copy, when this one is worked on"
    )
    options = parser.parse_args()
    for recipe in options.only:
        for rate in options.tune or [None]:
            for seed in options.seeds[: 1 if options.tune else None]:
                name = f"{recipe}_lr{rate:g}" if rate else recipe
                if f"{name}_{seed}" in read_runs():
                    continue
                seconds = train(options, name, recipe, seed, rate)
                keep(name, recipe, seed, options.work / "runs" / f"{name}_{seed}", seconds)


def train(options: argparse.Namespace, name: str, recipe: str, seed: int, rate: float | None) -> float:
    """Returns the CPU seconds that the run took. Raises CalledProcessError when it fails; its log lies beside its folder."""
    folder = options.work / "runs" / f"{name}_{seed}"
    words = [*COMMON, precision(), *RECIPES[recipe], f"seed={seed}", f"hydra.run.dir={folder}"]
    words += data(options, recipe)
    words += [f"paths.cache={options.work / 'cache'}", *([f"optim.lr={rate}"] if rate else [])]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    before = cpu_seconds()
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        subprocess.run(
            [sys.executable, "train.py", *words], cwd=options.source, env=env, stdout=log, stderr=log, check=True
        )
    return cpu_seconds() - before


def data(options: argparse.Namespace, recipe: str) -> list[str]:
    """The overrides that name the recipe's texts; those of `manga_…` and `ensemble_…` make their own."""
    if recipe.startswith(("manga_", "ensemble_")):
        return []
    if not recipe.startswith("medquad_"):
        return ["data=clinc150", f"data.path={options.data.resolve()}"]
    if options.medquad is None:
        raise SystemExit(f"{recipe} needs --medquad.")
    folder = options.work / "medquad"
    write_types(options.medquad, folder)
    keys = {"train": "path", "dev": "val_path", "test": "test_path"}
    return ["data=files", *(f"data.{key}={folder / split}.jsonl" for split, key in keys.items())]


def cpu_seconds() -> float:
    """Of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def precision() -> str:
    """bf16 is 1.6 times as fast as fp32 where the CPU has it, and ten times as slow where it is emulated."""
    return f"hardware.precision={'bf16-mixed' if torch.ops.mkldnn._is_mkldnn_bf16_supported() else '32-true'}"


def read_runs() -> dict[str, Any]:
    """The runs in results/recipes.json. A run that is removed from the file is trained again."""
    file = RESULTS / "recipes.json"
    return json.loads(file.read_text())["runs"] if file.is_file() else {}


def keep(name: str, recipe: str, seed: int, folder: Path, seconds: float) -> None:
    """Add a run to results/recipes.json, under a lock, and rewrite the table. seconds: of CPU."""
    metrics = json.loads((folder / "metrics.json").read_text())
    student, _ = answers(folder, "test")
    row = {
        "recipe": recipe, "seed": seed, "command": without_paths((folder / "command.txt").read_text()),
        "scores": {key: metrics[key] for key in (*SCORES, *OTHERS) if key in metrics},
        "loss": last_losses(folder), "right": packed(student.right), "rows": len(student.right),
        "rare": packed(rare_rows(folder)), "validation": validation(folder), "cpu_seconds": round(seconds),
    }  # fmt: skip
    with (folder.parent / "recipes.lock").open("w") as lock:  # of all that write from this PATH
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs = read_runs()
        runs[f"{name}_{seed}"] = row
        write("recipes", "Recipes", {"versions": versions(), "runs": dict(sorted(runs.items()))}, body(runs))


def answers(folder: Path, split: str) -> tuple[Answers, Answers]:
    """Of student and teacher."""
    rows = predictions.load(folder, split)
    student, teacher = (Answers(rows.answers[name]["logits"], rows.truth["labels"]) for name in ("student", "teacher"))
    return student, teacher


def rare_rows(folder: Path) -> np.ndarray:
    """(N) bool: the test rows whose class is rare in training."""
    test = predictions.load(folder, "test")
    return rare_mask(test)[test.truth["labels"]]


def validation(folder: Path) -> dict[str, Any]:
    """Which rows the student got right and where it agrees with the teacher, and its mean KL in nats."""
    student, teacher = answers(folder, "validation")
    agrees = (student.predicted == teacher.predicted).all(-1)
    kl = float(divergence(teacher, student).mean())
    return {"right": packed(student.right), "agrees": packed(agrees), "rows": len(agrees), "kl": kl}


def packed(bits: np.ndarray) -> str:
    return np.packbits(bits).tobytes().hex()


def without_paths(command: str) -> str:
    """The command without paths of the machine."""
    places = (
        "data.path=",
        "data.unlabelled_path=",
        "data.val_path=",
        "data.test_path=",
        "paths.cache=",
        "hydra.run.dir=",
    )
    return shlex.join(word for word in shlex.split(command) if not word.startswith(places))


def last_losses(folder: Path) -> dict[str, float]:
    """Each term's mean over the last tenth of the steps that logged it."""
    from mangakd.evaluation.report import curves

    columns = curves.read(folder).columns
    terms = {name: values for name, (_, values) in columns.items() if name.startswith("train/loss")}
    return {name: float(np.mean(values[-max(len(values) // 10, 1) :])) for name, values in terms.items()}


def versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "lightning", "transformers")}


if __name__ == "__main__":
    main()
