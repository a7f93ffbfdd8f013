"""What does text without answers give a language model? SmolLM2-135M-Instruct → 10 of its 30 layers, instructions and Wikipedia.

    python benchmarks/language_instructions.py --data ../shared/data --work PATH [--only 10 10_topk] [--seeds 0]

--data: the folder of instructions/ and wiki/. Runs, scores and the extra are those of language.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from language import COMMON, NO_KD, STUDENTS, TEST, TOPK, answers, cpu, lines_of, row, write_lines
from results_file import table
from seed_runs import by_recipe, command, keep, parsed, runs_of, train

NAME = "language_instructions"
ROWS, VALIDATION, SENTENCES = 250, 32, 400
MORE = "+stages.distil.texts=[labelled,unlabelled]"
RECIPES = {
    "10": [*NO_KD, "trainer.max_epochs=8"],
    "10_topk": [*TOPK, MORE, "trainer.max_epochs=3"],
}  # 250 steps of 8 rows, and 246
NOTE = f"""{ROWS} instructions with their answers (self-instruct's seed tasks and user-oriented instructions, shuffled),
{TEST} others as test. Ten of SmolLM2's 30 layers, more from both ends than from the middle, bf16-mixed, learning rate 5e-4,
steps of 8. *10*: no KD, cross-entropy with the answers, eight epochs. *10_topk*: forward KL with 64 stored tokens and the
tail, alpha 0.9, on the same instructions and on {SENTENCES} sentences of Wikipedia, which have no answer, three epochs: as
many steps. Scores are of all target tokens of the answers; KL is that of teacher to student over the whole vocabulary. 95 %
intervals of the bootstrap over test answers, paired for the ratio. CPU minutes are of the run, with its store.

"""


def main() -> None:
    options = parsed(__doc__, "the folder of instructions/ and wiki/", RECIPES)
    options.work.mkdir(parents=True, exist_ok=True)
    words = files(options.data, options.work)
    options.data = options.work  # where answers() finds the test
    for seed in options.seeds:
        for recipe in options.only:
            folder = options.work / "runs" / f"{recipe}_{seed}"
            if folder.name in runs_of(NAME):
                continue
            before = cpu()
            own = [f"student.layers={STUDENTS['10']}", f"seed={seed}", f"paths.cache={options.work}/cache"]
            train(folder, [*COMMON, *words, *RECIPES[recipe], *own], source=options.source)
            minutes = (cpu() - before) / 60
            record = {
                "command": command(folder),
                "cpu_minutes": minutes,
                "answers": answers(folder / "student", options),
            }
            keep(NAME, "A language model and text without answers", folder.name, record, body)


def files(data: Path, work: Path) -> list[str]:
    """Writes what the runs read; the words that name it."""
    names = ("seed_tasks", "user_oriented_instructions")
    tasks = [task for name in names for task in lines_of(data / "instructions" / f"{name}.jsonl")]
    rows = sorted((conversation(task) for task in tasks), key=hash_of)
    parts = {"test": rows[:TEST], "val": rows[TEST : TEST + VALIDATION], "train": rows[TEST + VALIDATION :][:ROWS]}
    for name, lines in parts.items():
        write_lines(work / f"{name}.jsonl", lines)
    sentences = (data / "wiki" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    texts = sorted((json.dumps({"text": each}) + "\n" for each in sentences if len(each) > 80), key=hash_of)
    path = write_lines(work / "sentences.jsonl", texts[:SENTENCES])
    places = {"data.path": "train", "data.val_path": "val", "data.test_path": "test"}
    return [*(f"{key}={work / name}.jsonl" for key, name in places.items()), f"data.unlabelled_path={path}"]


def conversation(task: Mapping[str, Any]) -> str:
    """A line with the instruction and its first input as the question."""
    first = task["instances"][0]
    question = "\n\n".join(part for part in (task["instruction"], first["input"]) if part.strip())
    return json.dumps({"question": question, "answer": first["output"]}) + "\n"


def hash_of(line: str) -> str:
    """An order that the files' own order does not decide."""
    return hashlib.sha256(line.encode()).hexdigest()


def body(runs: Mapping[str, Any]) -> str:
    head = ["recipe", "seeds", "KL", "KL / that of no KD", "agreement", "perplexity", "teacher's", "CPU minutes"]
    return NOTE + table(head, [row(recipe, each, runs) for recipe, each in by_recipe(runs).items()])


if __name__ == "__main__":
    main()
