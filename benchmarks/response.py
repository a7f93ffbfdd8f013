"""How much does distillation gain for a tiny language model, and what does it cost? `experiment=response_quickstart` over
seeds.

    python benchmarks/response.py --work PATH [--only layers random] [--seeds 0 1 2]

The teacher is fine-tuned once. Each recipe runs twice for each seed, with the student without KD beside it and without that
one: the difference is what it costs. Runs are `python train.py` in PATH/runs; results/response.json keeps what they
measured.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_file import table
from seed_runs import by_recipe, command, keep, runs_of, train

COMMON = ["experiment=response_quickstart", "hardware=cpu"]
RECIPES: dict[str, list[str]] = {
    "layers": [],
    "random": ["student=llama_mini", "stages.distil.limit=150", "stages.distil.epochs=48"],
}
SCORES = ("perplexity", "kl", "agreement")
NOTE = """Made-up answers of the shop, 200 test answers; both students take as many steps. *layers*: two of the teacher's four
layers, 100 answers, 28 epochs; *random*: `student=llama_mini`, random weights, 150 answers, 48 epochs. The teacher knows 2,000
answers and is the same for all seeds. Means over seeds, and the lowest and highest seed. CPU seconds of KD: of a run without the
student without KD, its start and its test among them; without KD: what that student adds to a run.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs and the cache")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    places = [f"paths.cache={options.work / 'cache'}"]
    train(options.work / "teacher", [*COMMON, *places], "scripts/cache_teacher.py")
    for seed in options.seeds:
        for recipe in options.only:
            folder = options.work / "runs" / f"{recipe}_{seed}"
            if folder.name not in runs_of("response"):
                words = [*COMMON, *RECIPES[recipe], f"seed={seed}", *places]
                both = seconds(folder, words)
                alone = seconds(folder.with_name(f"{folder.name}_alone"), [*words, "baseline=false"])
                keep("response", "A tiny language model", folder.name, record(folder, both, alone), body)


def seconds(folder: Path, words: Sequence[str]) -> float:
    """CPU seconds of a run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    train(folder, words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def record(folder: Path, both: float, alone: float) -> dict[str, Any]:
    scores = json.loads((folder / "metrics.json").read_text())
    return {"command": command(folder), "scores": scores, "cpu_seconds": {"KD": alone, "no KD": both - alone}}


def body(runs: Mapping[str, Any]) -> str:
    head = ["recipe", "seeds", "score", "teacher", "KD", "no KD", "KD / no KD"]
    lines = [line for recipe, each in by_recipe(runs).items() for line in rows(recipe, each)]
    return NOTE + table(head, lines)


def rows(recipe: str, runs: Sequence[Any]) -> list[list[str]]:
    lines = []
    for score in SCORES:
        own, plain = ([run["scores"][f"{side}test/{score}"] for run in runs] for side in ("", "baseline/"))
        teacher = runs[0]["scores"].get(f"teacher/test/{score}")
        ratios = [a / b for a, b in zip(own, plain, strict=True)]
        lines.append([score, "–" if teacher is None else f"{teacher:.3f}", *map(span, (own, plain, ratios))])
    costs = [[run["cpu_seconds"][side] for run in runs] for side in ("KD", "no KD")]
    lines.append(["CPU seconds", "–", *(f"{np.mean(each):.0f}" for each in costs), "–"])
    return [[recipe, str(len(runs)), *line] for line in lines]


def span(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
