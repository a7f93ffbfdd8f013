"""How much does distillation gain for a rewriter of queries? QReCC and TREC CAsT, a fine-tuned teacher → a small T5, over seeds.

    python benchmarks/rewriting.py --data ../shared/data --work PATH [--only no-kd sequence] [--seeds 0]
    python benchmarks/rewriting.py --data … --work PATH --teacher embedded_lm --student embedded_t5 --only no-kd sequence more
    python benchmarks/rewriting.py --data … --work PATH --teacher embedded_t5 --student embedded_t5 --name rewriting_t5

The first line takes google/flan-t5-base and google/flan-t5-small, or --teacher and --student. The other lines need no network:
SmolLM2 is fine-tuned with task=response and writes the targets of a T5 whose tokenizer is trained on these conversations; or a T5
of twice the layers and the same tokenizer is fine-tuned. --rows, --tests and --length make the same experiment smaller. The
teacher is fine-tuned once; each run is a `python train.py` in PATH/<--name>/<recipe>_<seed>. All systems write the test by
scripts/label.py. results/<--name>.json keeps the scores of each test row (seed_runs.py).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from results_file import table
from rewriting_t5 import lines, t5_of, write_lines
from seed_runs import ROOT, by_recipe, command, estimates, keep, parsed, runs_of, text, train

from mangakd.data.rows import Rows
from mangakd.labelling.forms import Rewrites
from mangakd.models import embedded_lm, embedded_t5
from mangakd.tasks.rewrite.scores import scored
from mangakd.tasks.rewrite.search import Search

LARGER = {**embedded_t5.SIZES, "d_ff": 1024, "num_layers": 4, "num_decoder_layers": 4}  # the teacher embedded_t5, 8M
# rewrites of people; of the teacher, of the same turns; of people and of the teacher, of the turns that --rows left out
HUMAN, WRITTEN, BOTH = "HUMAN", "WRITTEN", "BOTH"
COMMON = [
    "task=rewrite", "data=files", "hardware=cpu", "hardware.batch_size=16", "hardware.accumulate=1",
    "teacher.fit.mode=never", "student=pretrained", "baseline=false", "task.generate=0",
]  # fmt: skip
ALONE = ["distill.alpha=0"]
RECIPES: dict[str, tuple[str, list[str]]] = {
    "no-kd": (HUMAN, ALONE),
    "sequence": (WRITTEN, ALONE),
    "more": (BOTH, ALONE),
    "token": (HUMAN, []),
    "sequence-token": (WRITTEN, []),
    "sequence-token-hidden": (WRITTEN, ["losses=[tokens,hidden]"]),
}
SYSTEMS = ("copy", "human", "teacher")
SOURCES = ("qrecc", "cast 2021")
SCORES = ("exact_match", "token_f1", "added_terms", "recall@10")
NOTE = """Training: {rows} turns of QReCC's training part and of CAsT 2019 and 2020; test: {tests} later turns of QReCC's test
part and of CAsT 2021, apart. Teacher {teacher}, student {student} ({copies} sentences that a random T5 learnt to copy before).
Sources of at most {length} tokens, {epochs} epochs in steps of 16, greedy texts. *no-kd*: the same student in as many steps, from
the rewrites of people; *sequence*: from those that the teacher wrote for the same turns; *more*: from those of people and from
those that the teacher wrote for {others} other turns of the training part, in about as many steps; *token*: forward KL with the
teacher's distributions, alpha 0.9; *hidden*: hidden states besides. *copy* is the utterance, *human* the rewrite of the data.
recall@10: whether a BM25 search with the text finds the row's answer among the answers of all QReCC turns; CAsT has none. Means
over seeds; 95 % intervals of the bootstrap over rows, paired for differences; *gain*: the share of the teacher's gain in
recall@10 over copying.

"""
Lines = list[dict[str, Any]]


def main() -> None:
    more = {
        "teacher": (
            "google/flan-t5-base",
            "hub id, folder, embedded_lm, or embedded_t5 for twice the student's layers",
        ),
        "student": ("google/flan-t5-small", "hub id, folder or embedded_t5"),
        "rows": (0, "turns of the training part, drawn at random; 0: all"),
        "tests": (0, "turns of the test part, drawn at random; 0: all"),
        "length": (256, "tokens of a source"),
        "epochs": (4, "of the student"),
        "copies": (
            0,
            "sentences of wiki that embedded_t5 learns to copy before (rewriting_copies.py); 0: it stays random",
        ),
        "name": ("rewriting", "of the file of results"),
    }
    options = parsed(__doc__, "the folder with qrecc and cast", RECIPES, more)
    options.work.mkdir(parents=True, exist_ok=True)
    files = prepared(options)
    test = lines(files["test"])
    settings = {name: getattr(options, name) for name in ("teacher", "student", "length", "epochs", "copies")}
    settings |= {"rows": len(lines(files["train"])), "others": len(lines(files["others"])), "tests": len(test)}
    finished = runs_of(options.name)
    if any(run["settings"] != settings for run in finished.values()):
        raise SystemExit(
            f"results/{options.name}.json has runs of other settings: take another --name, or remove the file."
        )
    answers = [row.get("answer", "") for row in (*test, *lines(options.data / "qrecc" / "rewrites.jsonl"))]
    index = Search().index(Rows({"answer": answers, "query_id": [""] * len(answers)}))
    student = student_of(options, files)
    teacher = teacher_of(options, files)
    texts = {"copy": [row["utterance"] for row in test], "human": [row["rewrite"] for row in test]}
    texts["teacher"] = written(options, teacher, files["test"], options.work / "teacher_test.jsonl")
    for system, own in texts.items():
        record = {"settings": settings, "rows": measured(test, own, index)}
        keep(options.name, "Rewriters", f"{system}_0", record, body)
    places, epochs = data_of(options, files, teacher)
    for seed in options.seeds:
        for recipe in options.only:
            folder = options.work / options.name / f"{recipe}_{seed}"
            if folder.name in finished:
                continue
            data, words = RECIPES[recipe]
            live = teacher if options.teacher != embedded_lm.NAME else student
            if live is student and words != ALONE:
                raise SystemExit(
                    f"{recipe} reads the teacher's distributions, and embedded_lm has another tokenizer: --only no-kd more"
                )
            paths = [f"data.path={places[data]}", f"data.val_path={files['dev']}", f"data.test_path={files['dev']}"]
            paths += [f"teacher.path={live}", f"student.path={student}", f"paths.cache={options.work / 'cache'}"]
            paths += [f"data.max_length={options.length}", f"trainer.max_epochs={epochs[data]}", f"seed={seed}"]
            paths += ["student.lr=1e-3"] if options.student == embedded_t5.NAME else []
            train(folder, [*COMMON, *words, *paths], source=options.source)
            own = written(options, folder / "student", files["test"], folder / "test.jsonl")
            record = {"settings": settings, "command": command(folder), "rows": measured(test, own, index)}
            keep(options.name, "Rewriters", folder.name, record, body)


def data_of(
    options: argparse.Namespace, files: Mapping[str, Path], teacher: Path
) -> tuple[dict[str, Path], dict[str, int]]:
    """Training files and epochs of the recipes that are to be run."""
    places, epochs = {HUMAN: files["train"]}, dict.fromkeys((HUMAN, WRITTEN), options.epochs)
    human, wanted = lines(files["train"]), {RECIPES[recipe][0] for recipe in options.only}
    for data, name, others in ((WRITTEN, "train", []), (BOTH, "others", human)):
        if data in wanted:
            turns = lines(files[name])
            texts = written(options, teacher, files[name], options.work / f"teacher_{name}.jsonl") if turns else []
            own = [{**row, "rewrite": text} for row, text in zip(turns, texts, strict=True) if text]
            places[data] = write_lines(options.work / f"written_{name}.jsonl", [*others, *own])
            epochs[BOTH] = max(1, round(options.epochs * len(human) / (len(human) + len(own))))
    return places, epochs


def prepared(options: argparse.Namespace) -> dict[str, Path]:
    """Files of training, validation, test, and of the turns that --rows and --tests left out; source: where a row comes from."""
    qrecc = [{**row, "source": "qrecc"} for row in lines(options.data / "qrecc" / "rewrites.jsonl")]
    cast = [{**row, "source": f"cast {row['year']}"} for row in lines(options.data / "cast" / "rewrites.jsonl")]
    recent = [row for row in cast if row["source"] == SOURCES[1]]
    parts = {name: [row for row in qrecc if row["split"] == name] for name in ("train", "dev", "test")}
    parts["train"] += [row for row in cast if row["source"] != SOURCES[1]]
    parts["test"] = [row for row in parts["test"] + recent if row["history"]]
    parts["others"] = []
    for name, rest, count in (("train", "others", options.rows), ("test", "rest", options.tests)):
        drawn = random.Random(0).sample(parts[name], len(parts[name]))
        if count:
            parts[name], parts[rest] = drawn[:count], drawn[count:]
    columns = ("history", "utterance", "rewrite", "answer", "source")
    return {
        name: write_lines(
            options.work / f"{name}.jsonl", [{key: row[key] for key in columns if row.get(key)} for row in rows]
        )
        for name, rows in parts.items()
    }


def asked() -> Rewrites:
    """How a language model that is fine-tuned is asked: as conf/label.yaml says, without examples."""
    return Rewrites(**(yaml.safe_load((ROOT / "conf" / "label.yaml").read_text())["rewriting"] | {"examples": []}))


def teacher_of(options: argparse.Namespace, files: Mapping[str, Path]) -> Path:
    """The folder of the fine-tuned teacher. embedded_t5 has twice the student's layers and the student's tokenizer."""
    path, fit = options.teacher, ["teacher.fit.epochs=2", "teacher.fit.lr=2e-4"]
    cache = options.work / "cache_teacher"
    words = ["task=rewrite", f"data.max_length={options.length}", "student=t5_tiny", "task.generate=0"]
    if options.teacher == embedded_t5.NAME:
        path, fit = (
            t5_of(options, files, cache / "larger", LARGER),
            ["teacher.fit.epochs=10", "teacher.fit.lr=1e-3"],
        )
    if options.teacher == embedded_lm.NAME:
        words = ["task=response", "models=embedded_lm", f"data.max_length={options.length + 64}"]
        files = {
            name: write_lines(options.work / f"asked_{name}.jsonl", conversations(lines(files[name])))
            for name in ("train", "dev")
        }
    words += [
        f"data.path={files['train']}",
        f"data.val_path={files['dev']}",
        f"data.test_path={files['dev']}",
        "data=files",
    ]
    words += [f"teacher.path={path}", "teacher.fit.mode=always", *fit]
    folders = cache / "teachers"
    if not any(folders.glob("*/config.json")):
        words += ["hardware=cpu", "hardware.batch_size=16", "hardware.accumulate=1", f"paths.cache={cache}"]
        train(cache, words, "scripts/cache_teacher.py", options.source)
    return next(folders.glob("*/config.json")).parent


def conversations(rows: Lines) -> Lines:
    """The same rows as messages, with the rewrite as the answer."""
    each = [
        (*asked().messages(row.get("history", []), row["utterance"]), ("assistant", row["rewrite"])) for row in rows
    ]
    return [{"messages": [{"role": role, "content": content} for role, content in messages]} for messages in each]


def student_of(options: argparse.Namespace, files: Mapping[str, Path]) -> Any:
    """embedded_t5 has a tokenizer of the training texts; other students are as they were published."""
    if options.student != embedded_t5.NAME:
        return options.student
    return t5_of(options, files, options.work / "cache", embedded_t5.SIZES)


def written(options: argparse.Namespace, model: Path, file: Path, out: Path) -> list[str]:
    """What a model writes for each row of a file; blank where it writes none."""
    words = [
        "writes=rewrites",
        f"provider.path={model}",
        f"data.path={file}",
        f"out={out}",
        "max_new_tokens=64",
        "cut=keep",
    ]
    if json.loads((model / "config.json").read_text()).get("is_encoder_decoder"):
        words += ["provider=seq2seq", f"provider.max_length={options.length}"]
    else:
        words += ["rewriting.examples=[]"]
    subprocess.run([sys.executable, "scripts/label.py", *words], cwd=options.source, check=True)
    texts = {row["row"]: row["rewrite"] for row in lines(out)}
    return [texts.get(number, "") for number in range(1, len(lines(file)) + 1)]


def measured(test: Lines, texts: Sequence[str], index: Any) -> dict[str, list[Any]]:
    """score → its value of each test row, None where there is none; and the row's source."""
    rows = []
    for i, (row, own) in enumerate(zip(test, texts, strict=True)):
        scores = scored([own], [row["rewrite"]], row["utterance"]) | index.scores(i, [own])
        rows.append({name: None if np.isnan(scores[name]) else round(scores[name], 6) for name in SCORES})
    return {"source": [row["source"] for row in test], **{name: [row[name] for row in rows] for name in SCORES}}


def body(runs: Mapping[str, Any]) -> str:
    head = ["system", "seeds", "source", "score", "value", "− copy", "− no KD", "gain"]
    settings = next(iter(runs.values()))["settings"]
    return NOTE.format(**settings) + table(head, [line for recipe in by_recipe(runs) for line in rows(recipe, runs)])


def rows(recipe: str, runs: Mapping[str, Any]) -> Iterator[list[str]]:
    groups = by_recipe(runs)
    for source in SOURCES:
        for score in SCORES:
            of = {name: _values(groups[name], source, score) for name in {recipe, *SYSTEMS, "no-kd"} & groups.keys()}
            of = {name: each for name, each in of.items() if len(each)}
            if recipe not in of or not {"copy"} <= of.keys():
                continue
            known = estimates(of)
            copy, own = known["copy"], known[recipe]
            plain = text(own - known["no-kd"], "{:+.3f}") if "no-kd" in known and recipe in RECIPES else "–"
            ahead = known["teacher"] - copy if score == "recall@10" and "teacher" in known else None
            gain = (
                (own - copy) / ahead if ahead is not None and ahead.interval[0] > 0 else None
            )  # else a share of nothing
            yield [
                recipe, str(len(groups[recipe])), source, score, text(own), text(own - copy, "{:+.3f}"), plain,
                "–" if gain is None or recipe not in RECIPES else text(gain),
            ]  # fmt: skip


def _values(own: Sequence[Any], source: str, score: str) -> np.ndarray:
    """Of the rows of a source that have the score, the mean over seeds."""
    chosen = [i for i, name in enumerate(own[0]["rows"]["source"]) if name == source]
    values = [[run["rows"][score][i] for i in chosen] for run in own]
    return np.array([np.mean(each) for each in zip(*values, strict=True) if None not in each])


if __name__ == "__main__":
    main()
