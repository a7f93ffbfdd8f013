"""How much does distillation gain? Compares recipes with the same student without a teacher, for equal steps, over seeds.

    python benchmarks/recipes.py --data ../shared/data/clinc150/data_full.json --work PATH [--only two_stage] [--seeds 0 1]

Each run is `python train.py …` in PATH/<recipe>_<seed>: one that was stopped goes on, one in the results is left out. After
each, its scores and which test rows it got right are kept in results/recipes.json, so that all intervals can be computed again
without the runs, and results/recipes.md is written anew. Two of these may run side by side on the same PATH, with other recipes.
The student: BERT of 4 layers of 312, random weights (`start_…`: started from the teacher). Recipes take about 4,700 steps of 64
texts (`short_…` and `start_…`: 1,410; `few_…`: 2,350; `adaptive_…`: 940; `manga_…`: 1,564 of 32), as many as the runs without KD
that they are compared with; learning rates are tuned on validation with seed 0 (`--tune`). Intervals are of the bootstrap over
test rows, each row's value being the mean over seeds.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import RESULTS, table, write

from mangakd.evaluation import predictions
from mangakd.evaluation.bootstrap import Estimate, bootstrap
from mangakd.evaluation.statistics import Answers, mean

ROOT = Path(__file__).resolve().parents[1]
COMMON = [
    "task=intent", "hardware=cpu", "resume=auto", "student=tinybert_4l_312d", "teacher.fit.epochs=5",
    "augment.copies=3", "distill.alpha=0.9",
]  # fmt: skip
FEW = ["data.labelled_share=0.1", "teacher.fit.epochs=30", "distill.temperature=1", "augment.copies=1"]
ALL_TEXTS = "[labelled,unlabelled,augmented]"
STORED = "+stages.distil.teacher=stored"
RECIPES: dict[str, list[str]] = {  # 235 steps are an epoch of the labelled texts, 937 with three new ones of each
    "no_kd": ["losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=20", "optim.lr=5e-4"],
    "two_stage": ["stages=two_stage", "stages.features.epochs=2", "stages.soft_targets.epochs=3"],
}
ONE_COPY = "augment.copies=1"  # 470 steps are an epoch of labelled and new texts
RECIPES |= {
    "short_no_kd": ["losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=6"],
    "short_output_only": ["trainer.max_epochs=6", STORED],
    "short_output_new_texts": [ONE_COPY, "trainer.max_epochs=3", STORED, "+stages.distil.texts=[labelled,augmented]"],
    "short_feature_only": [
        ONE_COPY, "stages=feature_only", "distill.alpha=0", "stages.features.epochs=2", "stages.head.epochs=2",
    ],
    "short_two_stage": [ONE_COPY, "stages=two_stage", "stages.features.epochs=1", "stages.soft_targets.epochs=2"],
    "short_combined": [ONE_COPY, "stages=combined", "trainer.max_epochs=3"],
    "short_three_stage": [
        ONE_COPY, "stages=three_stage", "stages.features={losses: [hidden], texts: [labelled, augmented], epochs: 1}",
        "stages.soft_targets={losses: [output], texts: [labelled, augmented], epochs: 1, teacher: stored}",
        "stages.labels.epochs=2",
    ],
    "few_no_kd": [
        *FEW, "losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=98", "+trainer.check_val_every_n_epoch=5",
    ],
    "few_output_only": [*FEW, "trainer.max_epochs=10", STORED, "+stages.distil.texts=[labelled,unlabelled]"],
    "few_two_stage": [
        *FEW, "stages=two_stage", f"stages.features.texts={ALL_TEXTS}", f"stages.soft_targets.texts={ALL_TEXTS}",
        "stages.features.epochs=2", "stages.soft_targets.epochs=3",
    ],
}  # fmt: skip
START = ["student.start=teacher", "optim.lr=5e-4"]
RECIPES |= {
    "start_no_kd": [*START, *RECIPES["short_no_kd"]],
    "start_output_only": [*START, *RECIPES["short_output_only"]],
    "start_output_new_texts": [*START, *RECIPES["short_output_new_texts"]],
}
ADAPTIVE = [*FEW, "augment.copies=0", "trainer.max_epochs=4", STORED, "+stages.distil.texts=[labelled,unlabelled]"]
RECIPES |= {
    "adaptive_t1": ADAPTIVE,
    "adaptive_t4": [*ADAPTIVE, "distill.temperature=4"],
    "adaptive_t4_sample": [*ADAPTIVE, "distill.temperature=4", "losses.output.temperature_by=sample"],
    "adaptive_t4_class": [*ADAPTIVE, "distill.temperature=4", "losses.output.temperature_by=class"],
    "adaptive_entropy": [*ADAPTIVE, "losses.output.entropy=0.1"],
    "adaptive_smoothing": [*ADAPTIVE, "losses.hard_label.label_smoothing=0.1"],
    "adaptive_smoothing_aware": [
        *ADAPTIVE, "losses.hard_label.label_smoothing=0.1", "losses.hard_label.smoothing_aware=true",
    ],
}  # fmt: skip
# 782 steps are an epoch of the labelled texts, and of as many unlabelled ones
MANGA = ["data=manga_intent", "hardware.batch_size=32", "teacher.fit.epochs=1", "augment.copies=0"]
RECIPES |= {
    "manga_no_kd": [*MANGA, "losses=[hard_label]", "distill.alpha=0", "trainer.max_epochs=2"],
    **{
        f"manga_output_only_t{t}": [*MANGA, "trainer.max_epochs=2", STORED, f"distill.temperature={t}"]
        for t in (1, 2, 4, 8)
    },
    "manga_unlabelled": [
        *MANGA, "data.unlabelled=25000", "trainer.max_epochs=1", STORED, "+stages.distil.texts=[labelled,unlabelled]",
        "distill.temperature=2",
    ],
    "manga_two_stage": [
        *MANGA, "stages=two_stage", "stages.features.texts=[labelled]", "stages.soft_targets.texts=[labelled]",
        "stages.features.epochs=1", "stages.soft_targets.epochs=1", "distill.temperature=2",
    ],
}  # fmt: skip
BASELINES = {
    "adaptive_": "adaptive_t1",
    "few_": "few_no_kd",
    "short_": "short_no_kd",
    "start_": "start_no_kd",
    "manga_": "manga_no_kd",
    "": "no_kd",
}
SCORES = (
    "test/accuracy",
    "test/agreement",
    "test/kl",
    "test/ece",
    "test/retention",
    "teacher/test/accuracy",
    "train/steps",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150's data_full.json")
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
                train(options, name, recipe, seed, rate)
                keep(name, recipe, seed, options.work / "runs" / f"{name}_{seed}")


def train(options: argparse.Namespace, name: str, recipe: str, seed: int, rate: float | None) -> None:
    """Raises CalledProcessError when the run fails; its log lies beside its folder."""
    folder = options.work / "runs" / f"{name}_{seed}"
    words = [*COMMON, precision(), *RECIPES[recipe], f"seed={seed}", f"hydra.run.dir={folder}"]
    if not recipe.startswith("manga_"):
        words += ["data=clinc150", f"data.path={options.data.resolve()}"]
    words += [f"paths.cache={options.work / 'cache'}", *([f"optim.lr={rate}"] if rate else [])]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        subprocess.run(
            [sys.executable, "train.py", *words], cwd=options.source, env=env, stdout=log, stderr=log, check=True
        )


def precision() -> str:
    """bf16 is 1.6 times as fast as fp32 where the CPU has it, and ten times as slow where it is emulated."""
    return f"hardware.precision={'bf16-mixed' if torch.ops.mkldnn._is_mkldnn_bf16_supported() else '32-true'}"


def read_runs() -> dict[str, Any]:
    """The runs in results/recipes.json. A run that is removed from the file is trained again."""
    file = RESULTS / "recipes.json"
    return json.loads(file.read_text())["runs"] if file.is_file() else {}


def keep(name: str, recipe: str, seed: int, folder: Path) -> None:
    """Add a run to results/recipes.json, under a lock, and rewrite the table."""
    metrics = json.loads((folder / "metrics.json").read_text())
    test = predictions.load(folder, "test")
    right = Answers(test.answers["student"]["logits"], test.truth["labels"]).right
    row = {
        "recipe": recipe, "seed": seed, "command": without_paths((folder / "command.txt").read_text()),
        "scores": {key: metrics[key] for key in (*SCORES, "val/accuracy", "run/seconds")},
        "loss": last_losses(folder), "right": np.packbits(right).tobytes().hex(), "rows": len(right),
    }  # fmt: skip
    with (folder.parent / "recipes.lock").open("w") as lock:  # of all that write from this PATH
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs = read_runs()
        runs[f"{name}_{seed}"] = row
        write("recipes", "Recipes", {"versions": versions(), "runs": dict(sorted(runs.items()))}, body(runs))


def without_paths(command: str) -> str:
    """The command without paths of the machine."""
    places = ("data.path=", "paths.cache=", "hydra.run.dir=")
    return shlex.join(word for word in shlex.split(command) if not word.startswith(places))


def last_losses(folder: Path) -> dict[str, float]:
    """Each term's mean over the last tenth of the steps that logged it."""
    from mangakd.evaluation.report import curves

    columns = curves.read(folder).columns
    terms = {name: values for name, (_, values) in columns.items() if name.startswith("train/loss")}
    return {name: float(np.mean(values[-max(len(values) // 10, 1) :])) for name, values in terms.items()}


def versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "lightning", "transformers")}


def body(runs: dict[str, Any]) -> str:
    by_recipe: dict[str, list[Any]] = {}
    for name, run in runs.items():
        by_recipe.setdefault(name.rpartition("_")[0], []).append(run)
    rows = [row(name, runs, by_recipe) for name, runs in by_recipe.items()]
    head = ["recipe", "seeds", "test accuracy", "95 %", "minus no KD, points", "retention", "agreement", "KL", "ECE",
            "validation", "steps", "minutes"]  # fmt: skip
    return (
        "CLINC150, test: 4,500 rows of 150 intents; `few_…`: labels of a tenth of the training texts; `adaptive_…`: the same, "
        "output and hard labels alone, compared with T = 1 for all rows instead of no KD; `manga_…`: the synthetic corpus, "
        "3,000 rows of 10 intents. Means over seeds; 95 % intervals of the bootstrap over rows, paired for "
        "differences. `_lr…` rows are single runs that chose the learning rate, on validation.\n\n" + table(head, rows)
    )


def row(name: str, runs: Sequence[Any], by_recipe: dict[str, list[Any]]) -> list[str]:
    base = by_recipe.get(next(b for prefix, b in BASELINES.items() if name.startswith(prefix)), [])
    estimates = bootstrap({key: mean(right(of), most=1) for key, of in (("own", runs), ("base", base)) if of})
    score = lambda key: float(np.mean([run["scores"][key] for run in runs]))  # noqa: E731
    gap = points(estimates["own"] - estimates["base"]) if base and runs is not base else "–"
    low, high = estimates["own"].interval
    return [
        name, ", ".join(str(run["seed"]) for run in runs), f"{score('test/accuracy'):.1%}", f"{low:.1%} to {high:.1%}", gap,
        f"{score('test/retention'):.3f}", f"{score('test/agreement'):.1%}", f"{score('test/kl'):.3f}", f"{score('test/ece'):.3f}",
        f"{score('val/accuracy'):.1%}", f"{score('train/steps'):,.0f}", f"{score('run/seconds') / 60:.0f}",
    ]  # fmt: skip


def right(runs: Sequence[Any]) -> np.ndarray:
    """(N): the share of seeds that got a row right."""
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(run["right"]), np.uint8))[: run["rows"]] for run in runs]
    return np.mean(bits, axis=0)


def points(gap: Estimate) -> str:
    low, high = gap.interval
    return f"{100 * gap.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    main()
