"""How much does distillation gain for a language model? SmolLM2-135M-Instruct → 10 and 15 of its 30 layers, on GSM8K.

    python benchmarks/language.py --data ../shared/data/gsm8k --work PATH [--only 10 10_topk] [--seeds 0]

Each run is a `python train.py` in PATH/runs/<recipe>_<seed>. results/language.json keeps the sums of each test answer, which come
from transformers alone, at all tokens of the vocabulary, with the teacher in memory (seed_runs.py). The extra embedded-lm brings
the teacher.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import table
from seed_runs import ROOT, by_recipe, command, keep, parsed, runs_of, text, train
from transformers import AutoModelForCausalLM, AutoTokenizer

from mangakd.evaluation.bootstrap import Statistic, bootstrap
from mangakd.models.location import locate

ROWS, VALIDATION, EPOCHS, TEST, LENGTH = 400, 32, 3, 120, 384
COMMON = [
    "task=response", "models=embedded_lm", "hardware=cpu", "hardware.accumulate=1", "optim.lr=5e-4", f"data.max_length={LENGTH}",
    "data=files", "data.columns.prompt=question", "data.test_limit=8",
]  # fmt: skip
STUDENTS = {
    "10": [1, 2, 3, 4, 5, 14, 22, 28, 29, 30],
    "10-first": [1, 2, 3, 4, 5, 6, 7, 8, 9, 30],
    "10-spread": [1, 4, 7, 10, 13, 16, 19, 22, 26, 30],
    "15": [1, 2, 3, 4, 5, 6, 7, 8, 13, 17, 21, 25, 28, 29, 30],
}
WRITTEN = "WRITTEN"  # GSM8K's training questions with answers of the teacher
NO_KD = ["distill.alpha=0"]
LONG, SHORT = [f"trainer.max_epochs={EPOCHS}"], ["trainer.max_epochs=1"]
TOPK, HIDDEN = ["teacher=cached"], ["losses=[tokens,hidden]"]
RECIPES = {
    "10-first_short": [*TOPK, *SHORT],
    "10-spread_short": [*TOPK, *SHORT],
    "10_short": [*TOPK, *SHORT],
    "10": [*NO_KD, *LONG],
    "10_topk": [*TOPK, *LONG],
    "10_hidden": [*HIDDEN, *LONG],
    "10_cosine": [*HIDDEN, "losses.hidden.compare=cosine", *LONG],
    "10_sequence": [*NO_KD, *LONG, f"data.path={WRITTEN}"],
    "15": [*NO_KD, *LONG],
    "15_topk": [*TOPK, *LONG],
}
NOTE = f"""GSM8K: {ROWS} training questions with their answers, {EPOCHS} epochs (*short*: one) in steps of 8, bf16-mixed,
learning rate 5e-4; {TEST} test questions. The number is of layers kept: *10* and *15* more from both ends than from
the middle, *10-first* the first nine and the last, *10-spread* evenly spread. The teacher is SmolLM2-135M-Instruct as
it was published. Without a word after the number: no KD, cross-entropy with GSM8K's answers; *topk*: forward KL with
64 stored tokens and the tail, alpha 0.9; *hidden*: hidden states besides, with a live teacher, by their squared
error; *cosine*: by their angle; *sequence*: cross-entropy with answers that the teacher wrote, greedily, to the same
questions. Scores are of all target tokens of GSM8K's own answers; KL is that of teacher to student over the whole
vocabulary. Means over seeds; 95 % intervals of the bootstrap over test answers, paired for the ratio. CPU minutes are
of the run, with its store where it made it.

"""


def main() -> None:
    options = parsed(__doc__, "the folder gsm8k", RECIPES)
    rows = (options.data / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    options.work.mkdir(parents=True, exist_ok=True)
    files = {
        "data.path": write_lines(options.work / "train.jsonl", rows[:ROWS]),
        "data.val_path": write_lines(options.work / "val.jsonl", rows[ROWS : ROWS + VALIDATION]),
        "data.test_path": options.data / "test.jsonl",
    }
    places = [f"{key}={file}" for key, file in files.items()]
    for seed in options.seeds:
        for recipe in options.only:
            folder = options.work / "runs" / f"{recipe}_{seed}"
            if folder.name in runs_of("language"):
                continue
            words = RECIPES[recipe]
            if any(WRITTEN in word for word in words):
                words = [word.replace(WRITTEN, str(written(options))) for word in words]
            layers = STUDENTS[recipe.partition("_")[0]]
            before = cpu()
            train(
                folder,
                [
                    *COMMON,
                    *places,
                    *words,
                    f"student.layers={layers}",
                    f"seed={seed}",
                    f"paths.cache={options.work}/cache",
                ],
                source=options.source,
            )
            minutes = (cpu() - before) / 60
            record = {
                "command": command(folder),
                "cpu_minutes": minutes,
                "answers": answers(folder / "student", options),
            }
            keep("language", "Language models", folder.name, record, body)


def cpu() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def written(options: argparse.Namespace) -> Path:
    """The training questions with answers that the teacher wrote."""
    out, file = options.work / "answers.jsonl", options.work / "written.jsonl"
    prompts = [json.dumps({"prompt": row["question"]}) + "\n" for row in lines_of(options.work / "train.jsonl")]
    path = write_lines(options.work / "prompts.jsonl", prompts)
    words = ["provider.path=embedded_lm", f"data.path={path}", f"out={out}", "max_new_tokens=200", "cut=keep"]
    subprocess.run([sys.executable, "scripts/label.py", *words], cwd=ROOT, check=True)
    rows = [{"question": row["prompt"], "answer": row["answer"]} for row in lines_of(out)]
    return write_lines(file, [json.dumps(row) + "\n" for row in rows])


def write_lines(file: Path, lines: Iterable[str]) -> Path:
    file.write_text("".join(lines), encoding="utf-8")
    return file


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@torch.inference_mode()
def answers(student: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """For each test answer: its target tokens, and sums over them: −log q of student and teacher, KL, agreement."""
    place = locate("embedded_lm")
    tokenizer = AutoTokenizer.from_pretrained(place)
    models = [AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32).eval() for each in (student, place)]
    sums: dict[str, list[float]] = {name: [] for name in ("tokens", "nll", "teacher", "kl", "agreement")}
    for row in lines_of(options.data / "test.jsonl")[:TEST]:
        ids, first = tokens(tokenizer, row)
        own, its = (model(ids[None]).logits[0, first - 1 : -1].log_softmax(-1) for model in models)
        target = ids[first:, None]
        each = (
            len(target), -own.gather(1, target).sum(), -its.gather(1, target).sum(), (its.exp() * (its - own)).sum(),
            (own.argmax(1) == its.argmax(1)).sum(),
        )  # fmt: skip
        for name, value in zip(sums, each, strict=True):
            sums[name].append(round(float(value), 4))
    return sums


def tokens(tokenizer: Any, row: Mapping[str, str]) -> tuple[torch.Tensor, int]:
    """A conversation's tokens up to the end of its answer, and the place of the answer's first."""
    question = [{"role": "user", "content": row["question"]}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(
        [*question, {"role": "assistant", "content": row["answer"]}], tokenize=False
    ).rstrip("\n")
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    return torch.tensor(encode(whole)), len(encode(prompt))


def body(runs: Mapping[str, Any]) -> str:
    head = ["recipe", "seeds", "KL", "KL / that of no KD", "agreement", "perplexity", "teacher's", "CPU minutes"]
    return NOTE + table(head, [row(recipe, each, runs) for recipe, each in by_recipe(runs).items()])


def ratio(of: str, by: Sequence[Mapping[str, Sequence[float]]]) -> Any:
    """Of sums over all answers: rows are resampled with their tokens, and seeds are means."""
    values = np.mean([[each[of], each["tokens"]] for each in by], 0).T
    return Statistic(values, lambda total: total[..., 0] / total[..., 1], most=np.inf)


def row(recipe: str, own: Sequence[Any], runs: Mapping[str, Any]) -> list[str]:
    mine = [run["answers"] for run in own]
    plain = [run["answers"] for run in by_recipe(runs).get(recipe.partition("_")[0], [])]
    statistics = {name: ratio(name, mine) for name in ("kl", "agreement", "nll", "teacher")}
    statistics |= {"plain": ratio("kl", plain)} if plain else {}
    of = bootstrap(statistics)
    gain = of["kl"] / of["plain"] if plain and not recipe.endswith("_short") else None
    return [
        recipe, str(len(own)), text(of["kl"]), "–" if gain is None else text(gain), text(of["agreement"]),
        f"{math.exp(of['nll'].value):.2f}", f"{math.exp(of['teacher'].value):.2f}",
        f"{np.mean([run['cpu_minutes'] for run in own]):.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
