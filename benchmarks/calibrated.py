"""Do calibrated or smoothed soft targets of an over-confident teacher make a better calibrated student, on and off distribution?

    python benchmarks/calibrated.py --data PATH/TO/data_full.json --work PATH [--only raw …] [--seeds 0 1] [--limit 600]

10,000 rows of CLINC150, 15 % of them with labels. MiniLM is fine-tuned once, and then made over-confident on purpose: the
weights of its head are multiplied so that its logits are five times as sharp as calibrated ones. Students (3 of its layers)
learn from that teacher's answers to all training texts, at distill.temperature=1, as they are (`raw`), with
teacher.calibrate=temperature (`calibrated`), with teacher.smooth=0.05 (`smoothed`), or from the labels alone with as many steps
(`none`). Seeds are the students'; the teacher is one. CLINC150's 1,000 out-of-scope test rows belong to no intent: a student
should be unsure of them. `--limit` tries the script on so many rows of test and five times as many of train, and writes no
results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import numpy as np
import torch
from quickstart import cpu_seconds
from results_file import table
from seed_runs import by_recipe, keep, parsed, runs_of, train
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mangakd.cli.given import run_of
from mangakd.cli.once import as_hydra_gives_it, config_of, hydra_ready
from mangakd.core.temperature_fit import fit_temperature
from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.evaluation.statistics import Answers, log_softmax

NAME, TITLE = "calibrated", "Calibrated and smoothed soft targets of an over-confident teacher"
SHARPER, EPOCHS, SHARE, ROWS, BATCH = 5.0, 2, 0.15, 10_000, 128
DATA = ["data=clinc150", f"data.labelled_share={SHARE}", "hardware=cpu", "hardware.batch_size=32"]
FIT = ["teacher.path=embedded", "teacher.fit={mode: always, epochs: 10}"]
KD = [
    "distill.temperature=1",
    "distill.alpha=0.9",
    "+stages.distil.texts=[labelled,unlabelled]",
    f"trainer.max_epochs={EPOCHS}",
]
RECIPES: dict[str, list[str]] = {
    "raw": KD,
    "calibrated": [*KD, "teacher.calibrate=temperature"],
    "smoothed": [*KD, "teacher.smooth=0.05"],
    "none": ["losses=[hard_label]", "distill.alpha=0", f"trainer.max_epochs={round(EPOCHS / SHARE)}"],
}
COLUMNS = {"accuracy": "{:.1%}", "ece": "{:.3f}", "nll": "{:.3f}", "oos_confidence": "{:.3f}", "oos_auroc": "{:.3f}"}
Rows = Mapping[str, Sequence[Sequence[str]]]


def main() -> None:
    options = parsed(
        __doc__, "CLINC150's data_full.json", RECIPES, {"limit": ("", "rows of train and test, for a trial")}
    )
    limit = int(options.limit or 0)
    limits = [f"data.train_limit={5 * limit or ROWS}"]
    limits += [f"data.val_limit={limit}", f"data.test_limit={limit}"] if limit else []
    words = [*DATA, f"data.path={options.data.resolve()}", f"paths.cache={options.work.resolve() / 'cache'}", *limits]
    rows = json.loads(options.data.read_text())
    if limit:
        rows = {name: each[:limit] for name, each in rows.items()}
    teacher, seconds = over_confident(options.work.resolve(), words, rows["val"])
    results: dict[str, Any] = {} if limit else runs_of(NAME)
    if "teacher_0" not in results:
        results["teacher_0"] = {**scores(teacher, rows), "cpu_seconds": seconds}
        write(results, "teacher_0", bool(limit))
    for seed in options.seeds:
        for recipe in options.only:
            if f"{recipe}_{seed}" in results:
                continue
            folder, before = options.work / f"{recipe}_{seed}", cpu_seconds()
            own = [*words, "teacher=cached", f"teacher.path={teacher}", *RECIPES[recipe], f"seed={seed}", "logger=[]"]
            train(folder, own, source=options.source)
            metrics = json.loads((folder / "metrics.json").read_text())
            kept = {
                name: metrics[f"teacher/{name}"]
                for name in ("calibration_temperature",)
                if f"teacher/{name}" in metrics
            }
            results[f"{recipe}_{seed}"] = {
                **scores(folder / "student", rows), **kept, "teacher_ece": metrics["teacher/test/ece"],
                "cpu_seconds": cpu_seconds() - before,
            }  # fmt: skip
            write(results, f"{recipe}_{seed}", bool(limit))
    if limit:
        print(body(results))


def over_confident(work: Path, words: Sequence[str], validation: Sequence[Sequence[str]]) -> tuple[Path, float]:
    """The folder of the fine-tuned teacher with sharper logits, and the CPU seconds of making it."""
    folder, before = work / "teacher", sum(os.times()[:2])
    if not (folder / "config.json").is_file():
        with hydra_ready():
            config = config_of("train", *words, *FIT, folder=work / "fit")
            run = run_of(as_hydra_gives_it(config), work / "fit")
            where = run.material.members.where(run.parts.teacher.models[0])
        model = AutoModelForSequenceClassification.from_pretrained(where)
        tokenizer, ids = AutoTokenizer.from_pretrained(where), model.config.label2id
        own = logits(model.eval(), tokenizer, [text for text, _ in validation])
        sharper = SHARPER / fit_temperature(own, np.array([ids[label] for _, label in validation]))
        with torch.no_grad():
            model.classifier.weight *= sharper
            model.classifier.bias *= sharper
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder, sum(os.times()[:2]) - before


def scores(folder: Path, rows: Rows) -> dict[str, float]:
    """Of a model's folder on test, and on the out-of-scope rows, where no answer is right: their ECE is the mean confidence."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, ids = AutoTokenizer.from_pretrained(folder), model.config.label2id
    inside = logits(model, tokenizer, [text for text, _ in rows["test"]])
    outside = logits(model, tokenizer, [text for text, _ in rows["oos_test"]])
    targets = np.array([ids[label] for _, label in rows["test"]])
    answers = Answers(inside, targets)
    found = bootstrap({"accuracy": statistics.accuracy(answers), "ece": statistics.ece(answers)}, 2)
    sure, unsure = (np.exp(log_softmax(each)).max(-1) for each in (inside, outside))
    return {
        **{name: float(each.value) for name, each in found.items()},
        "nll": -float(log_softmax(inside)[np.arange(len(targets)), targets].mean()),
        "oos_confidence": float(unsure.mean()),
        "oos_auroc": auroc(sure, unsure),
    }


def logits(model: Any, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """(N, C), in float64."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            batch = [texts[i] for i in order[start : start + BATCH]]
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=64, return_tensors="pt")
            parts.append(model(**inputs).logits.double().numpy())
    found = np.concatenate(parts)
    return found[np.argsort(order)]


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The probability that a row of test is surer than one out of scope; equal ones count half."""
    sorted_outside = np.sort(outside)
    below, upto = (np.searchsorted(sorted_outside, inside, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(outside))


def write(results: Mapping[str, Any], key: str, trial: bool) -> None:
    row = results[key]
    print(key, {name: round(value, 4) for name, value in row.items()}, flush=True)
    if not trial:
        keep(NAME, TITLE, key, row, body)


def body(results: Mapping[str, Any]) -> str:
    titles = ["teacher", *RECIPES]
    groups = {name: rows for name, rows in by_recipe(results).items() if name in titles}
    lines = [
        [name, str(len(groups[name])), *(cell(groups[name], key, form) for key, form in COLUMNS.items())]
        for name in titles
        if name in groups
    ]
    fitted = [row["calibration_temperature"] for row in results.values() if row.get("calibration_temperature", 1) != 1]
    temperatures = ", ".join(sorted({f"{each:.2f}" for each in fitted})) or "–"
    minutes = sum(row["cpu_seconds"] for row in results.values()) / 60
    return (
        "10,000 rows of CLINC150, 15 % of them with labels; 4,500 rows of test and 1,000 out of scope. The teacher's logits were "
        "made five times as sharp as calibrated ones, on purpose. Students learn at T = 1; `calibrate` fitted "
        f"T = {temperatures}. *OOS confidence* is the mean largest "
        "probability on the rows out of scope, where no answer is right, and so the ECE there. *OOS AUROC*: test against out of "
        "scope by the largest probability. Means over the students' seeds, with the lowest and highest.\n\n"
        f"{table(['', 'seeds', 'accuracy', 'ECE', 'NLL', 'OOS confidence', 'OOS AUROC'], lines)}\n\n"
        f"{minutes:.0f} CPU minutes in all."
    )


def cell(rows: Sequence[Mapping[str, float]], key: str, form: str) -> str:
    values = [row[key] for row in rows]
    ends = f" ({form.format(min(values))} to {form.format(max(values))})" if len(rows) > 1 else ""
    return form.format(np.mean(values)) + ends


if __name__ == "__main__":
    main()
