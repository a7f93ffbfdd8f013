"""What do a teacher's texts gain for a rewriter? The T5 of `experiment=rewrite_quickstart` with 300 human rewrites, over seeds.

    python benchmarks/written.py --work PATH [--seeds 0 1 2]

The teacher learns all 4,000 human rewrites of the made-up shop. *few*: its student learns from 300 of them; *written*: also
from what the teacher wrote to the other 3,700 turns (`scripts/label.py`). The latter takes fewer steps. Runs are `python
train.py` in PATH/runs; results/written.json keeps each test row's scores of texts (seed_runs.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_file import table
from seed_runs import ROOT, by_recipe, command, keep, runs_of, text, train

from mangakd.evaluation import predictions
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.shop import manga_rewrites
from mangakd.tasks.rewrite.measures import of_text

HUMAN = 300
SCORES = ("exact_match", "recall@10")
COMMON = [
    "experiment=rewrite_quickstart",
    "hardware=cpu",
    "data=files",
    "task.generate=null",
    "stages.distil.limit=null",
]
RECIPES = {  # data, epochs; 546 and 492 steps
    "few": ("human", ["stages.distil.epochs=26", "baseline=true"]),
    "written": ("both", ["stages.distil.epochs=2", "baseline=false"]),
}
NOTE = f"""800 made-up test turns; texts of the later turns. The teacher, 2 + 2 layers, learnt 4,000 human rewrites and is the
same for all seeds; the student has its encoder and the first layer of its decoder. *no KD*: {HUMAN} human rewrites
alone, 546 steps; *few*: forward KL on these, 546 steps; *written*: forward KL on these and on what the teacher
wrote to 3,700 other turns, 492 steps. Means over seeds; 95 % intervals of the bootstrap over test rows, paired for
differences.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs and the cache")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    data, places = files(options.work / "data"), [f"paths.cache={options.work / 'cache'}"]
    places += [f"data.{key}_path={data / key}.jsonl" for key in ("val", "test")]
    teacher = teacher_of(options.work, [*COMMON, *places, f"data.path={data / 'train.jsonl'}"])
    write(data, teacher)
    places += [f"teacher.path={teacher}", "teacher.fit.mode=never"]
    for seed in options.seeds:
        for recipe, (name, words) in RECIPES.items():
            folder = options.work / "runs" / f"{recipe}_{seed}"
            if folder.name not in runs_of("written"):
                train(folder, [*COMMON, *words, f"seed={seed}", *places, f"data.path={data / name}.jsonl"])
                keep("written", "Texts of a teacher", folder.name, record(folder), body)


def files(folder: Path) -> Path:
    """The shop's turns as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        turns = [turn._asdict() for turn in manga_rewrites.make_split(split)]
        rows = [
            {**turn, "rewrite": turn.pop("rewrites"), "conversation": f"{split} {turn['conversation']}"}
            for turn in turns
        ]
        _save(folder / f"{name}.jsonl", rows)
        if split == "train":
            _save(folder / "human.jsonl", rows[:HUMAN])
            _save(folder / "turns.jsonl", [{k: v for k, v in row.items() if k != "rewrite"} for row in rows[HUMAN:]])
    return folder


def _save(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def teacher_of(work: Path, words: Sequence[str]) -> Path:
    """The folder of the teacher that is fine-tuned on all human rewrites."""
    folders = work / "cache" / "teachers"
    if not any(folders.glob("*/config.json")):
        train(work / "teacher", words, "scripts/cache_teacher.py")
    return next(folders.glob("*/config.json")).parent


def write(data: Path, teacher: Path) -> None:
    """both.jsonl: the human rewrites, and those of the teacher."""
    out = data / "written.jsonl"
    words = [
        "writes=rewrites",
        "provider=seq2seq",
        f"provider.path={teacher}",
        f"data.path={data / 'turns.jsonl'}",
        f"out={out}",
    ]
    subprocess.run([sys.executable, "scripts/label.py", *words], cwd=ROOT, check=True)
    (data / "both.jsonl").write_text((data / "human.jsonl").read_text() + out.read_text(), encoding="utf-8")


def record(folder: Path) -> dict[str, Any]:
    test = predictions.load(folder, "test")
    models = {name: test.answers[name] for name in ("copy", "teacher", "baseline", "student") if name in test.answers}
    # NaN, of a first turn's search, is no JSON
    rows = {
        name: {score: [None if np.isnan(v) else float(v) for v in each[score]] for score in SCORES}
        for name, each in models.items()
    }
    scores = json.loads((folder / "metrics.json").read_text())
    return {"command": command(folder), "scores": scores, "later": (test.truth["later"] > 0).tolist(), "rows": rows}


def body(runs: Mapping[str, Any]) -> str:
    few, more = (by_recipe(runs).get(name, []) for name in RECIPES)
    systems = {
        "copy": (few, "copy"),
        "no KD": (few, "baseline"),
        "few": (few, "student"),
        "written": (more, "student"),
        "teacher": (few, "teacher"),
    }
    lines = [line(score, systems) for score in SCORES]
    lines += [plain(score, few, more) for score in ("perplexity", "kl")]
    return NOTE + table(["score", "seeds", *systems, "few − no KD", "written − no KD"], lines)


def line(score: str, systems: Mapping[str, tuple[Sequence[Any], str]]) -> list[str]:
    statistics = {}
    for name, (runs, model) in systems.items():
        if runs:
            values = np.array([run["rows"][model][score] for run in runs], dtype=np.float64).mean(0)
            statistics[name] = of_text(values, np.array(runs[0]["later"]))
    of = bootstrap(statistics)
    gaps = [text(of[name] - of["no KD"], "{:+.3f}") if name in of else "–" for name in ("few", "written")]
    return [
        score,
        str(len(systems["few"][0])),
        *(f"{of[name].value:.3f}" if name in of else "–" for name in systems),
        *gaps,
    ]


def plain(score: str, few: Sequence[Any], more: Sequence[Any]) -> list[str]:
    def mean(runs: Sequence[Any], key: str) -> str:
        values = [run["scores"][key] for run in runs if key in run["scores"]]
        return f"{np.mean(values):.3f}" if values else "–"

    keys = (
        (few, f"baseline/test/{score}"),
        (few, f"test/{score}"),
        (more, f"test/{score}"),
        (few, f"teacher/test/{score}"),
    )
    return [score, str(len(few)), "–", *(mean(runs, key) for runs, key in keys), "–", "–"]


if __name__ == "__main__":
    main()
