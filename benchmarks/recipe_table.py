"""The tables of recipes.py: recipes on test, and single changes of one recipe on validation.

Both are computed from results/recipes.json alone. An interval is that of the bootstrap over rows, each row's value being the
mean over seeds; differences are paired. The gap is between the student without KD from random weights and the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from recipe_list import BASELINES, GAPS, LEVERS
from results_file import table

from mangakd.evaluation.bootstrap import Estimate, bootstrap
from mangakd.evaluation.statistics import mean

HEAD = [
    "recipe", "seeds", "test accuracy", "95 %", "minus no KD, points", "gap closed", "rare classes", "minus no KD, points",
    "retention", "agreement", "KL", "ECE", "validation", "steps", "minutes",
]  # fmt: skip
LEVER_HEAD = ["lever", "beside", "seeds", "accuracy", "minus", "agreement", "minus", "KL", "CPU minutes"]
ABOUT = (
    "CLINC150, test: 4,500 rows of 150 intents; `few_…`: labels of a tenth of the training texts; `adaptive_…`: the same, "
    "output and hard labels alone, compared with T = 1 for all rows instead of no KD; `start_…`, `few_start_…`, `lever_…`, "
    "`with_…`: the student and the one without KD start from the teacher; `manga_…`: the synthetic corpus, 3,000 rows of 10 "
    "intents; "
    "`medquad_…`: 1,259 questions about diseases by their 15 types; `ensemble_…`: 2,000 labels of the synthetic corpus. "
    "Means over seeds; 95 % intervals of the bootstrap over rows, paired for differences. Gap closed: (student − no KD) / "
    "(teacher − no KD), where no KD starts from random weights and takes as many steps. Rare classes have less than half of "
    "an equal share of the training rows. `_lr…` rows are single runs that chose the learning rate, on validation."
)
ABOUT_LEVERS = (
    "One change each to a recipe, on CLINC150's validation (3,000 rows), minus that recipe with the same seeds, in points. "
    "Agreement is with the teacher's answers. The CPU minutes are of the whole run; the first run with a teacher fine-tunes it. "
    "`with_ema` (decay .998), `with_hidden_fitted` (its projections by ridge regression on the first 20 batches), "
    "`with_layer_lr` (× .8 a layer from the top) and `with_chosen_copies` (of three copies of each text those of which the "
    "teacher is between 20 and 90 % sure) needed code that was not kept, because it did not pay."
)
Runs = Sequence[Mapping[str, Any]]


def body(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of results/recipes.md."""
    by_recipe: dict[str, list[Any]] = {}
    for name, run in runs.items():
        by_recipe.setdefault(name.rpartition("_")[0], []).append(run)
    tests = estimates({name: bits(each) for name, each in by_recipe.items()})
    rows = [row(name, each, by_recipe, tests) for name, each in by_recipe.items()]
    levers = [lever(name, each, by_recipe) for name, each in by_recipe.items() if base_of(LEVERS, name) in by_recipe]
    return f"{ABOUT}\n\n{table(HEAD, rows)}\n\n## Levers\n\n{ABOUT_LEVERS}\n\n{table(LEVER_HEAD, levers)}"


def estimates(values: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """name → (N) numbers of the rows → their mean. Those of equally many rows share the resamples, which are what takes time."""
    result: dict[str, Estimate] = {}
    for rows in {len(each) for each in values.values()}:
        result |= bootstrap({name: mean(each, most=1) for name, each in values.items() if len(each) == rows})
    return result


def base_of(bases: Mapping[str, str], name: str) -> str | None:
    return next((base for prefix, base in bases.items() if name.startswith(prefix)), None)


def row(name: str, runs: Runs, by_recipe: Mapping[str, Runs], tests: Mapping[str, Estimate]) -> list[str]:
    base = base_of(BASELINES, name) or ""
    gap = points(tests[name] - tests[base]) if base in tests and base != name else "–"
    low, high = tests[name].interval
    return [
        name, seeds(runs), f"{score(runs, 'test/accuracy'):.1%}", f"{low:.1%} to {high:.1%}", gap,
        closed(runs, by_recipe.get(base_of(GAPS, name) or "", [])), *rare(runs, by_recipe.get(base, [])),
        f"{score(runs, 'test/retention'):.3f}", f"{score(runs, 'test/agreement'):.1%}", f"{score(runs, 'test/kl'):.3f}",
        f"{score(runs, 'test/ece'):.3f}", f"{score(runs, 'val/accuracy'):.1%}", f"{score(runs, 'train/steps'):,.0f}",
        f"{score(runs, 'run/seconds') / 60:.0f}",
    ]  # fmt: skip


def lever(name: str, runs: Runs, by_recipe: Mapping[str, Runs]) -> list[str]:
    base_name = base_of(LEVERS, name) or ""
    own = [run for run in runs if "validation" in run]
    base = [
        run for run in by_recipe[base_name] if "validation" in run and run["seed"] in [each["seed"] for each in own]
    ]
    keys = ("right", "agrees")
    both = estimates({f"{side} {key}": bits(of, key) for key in keys for side, of in (("own", own), ("base", base))})
    cells = []
    for key in keys:
        cells += [f"{both[f'own {key}'].value:.1%}", points(both[f"own {key}"] - both[f"base {key}"])]
    kl = np.mean([run["validation"]["kl"] for run in own])
    return [
        name,
        base_name,
        seeds(own),
        *cells,
        f"{kl:.3f}",
        f"{np.mean([run['cpu_seconds'] for run in own]) / 60:.1f}",
    ]


def score(runs: Runs, key: str) -> float:
    return float(np.mean([run["scores"][key] for run in runs]))


def seeds(runs: Runs) -> str:
    return ", ".join(str(run["seed"]) for run in runs)


def closed(runs: Runs, base: Runs) -> str:
    """Share of the gap between the student without KD and the teacher."""
    if not base or runs is base:
        return "–"
    low, high = score(base, "test/accuracy"), score(runs, "teacher/test/accuracy")
    if high == low:  # no gap
        return "–"
    return f"{(score(runs, 'test/accuracy') - low) / (high - low):.0%}"


def rare(runs: Runs, base: Runs) -> list[str]:
    """Accuracy on the rows of classes that are rare in training, and its difference to the base."""
    mask = bits(runs[:1], "rare").astype(bool) if "rare" in runs[0] else np.zeros(0, bool)
    if not mask.any():
        return ["–", "–"]
    both = estimates({name: bits(of)[mask] for name, of in (("own", runs), ("base", base or runs))})
    beside = base and base is not runs and len(bits(base)) == len(mask)
    return [f"{both['own'].value:.1%}", points(both["own"] - both["base"]) if beside else "–"]


def bits(runs: Runs, key: str | None = None) -> np.ndarray:
    """(N): the share of seeds that got a test row right; key: right or agrees on validation, or which test rows are rare."""
    records = [run["validation"] if key in ("right", "agrees") else run for run in runs]
    each = [
        np.unpackbits(np.frombuffer(bytes.fromhex(record[key or "right"]), np.uint8))[: record["rows"]]
        for record in records
    ]
    return np.mean(each, axis=0)


def points(gap: Estimate) -> str:
    low, high = gap.interval
    return f"{100 * gap.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
