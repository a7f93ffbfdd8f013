"""How close do the vectors of a 3-layer student come to its teacher's? all-MiniLM-L6 → three of its layers, over seeds, no label.

    python benchmarks/embedding.py --data ../shared/data --work PATH [--only layers matryoshka] [--seeds 0 1]

--data: the folder of wiki/, stsb_en/ and medquad/. The student learns from texts alone: sentences of Wikipedia, the sentences of
STS's training pairs without their scores, and MedQuAD's training questions and answers. Each run is a `python train.py` in
PATH/runs/<recipe>_<seed>; results/embedding.json keeps what it measured (seed_runs.py).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import table
from seed_runs import by_recipe, command, keep, parsed, runs_of, train
from transformers import AutoModel, AutoTokenizer

from mangakd.evaluation import predictions
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.tasks.embedding import scores

LENGTH, DIMS = 64, (128, 64)
TUNED = "TUNED"  # a folder of the teacher, fine-tuned on MedQuAD
COMMON = [
    "task=embedding",
    "task.most=5",
    "hardware=cpu",
    f"data.max_length={LENGTH}",
    "teacher=cached",
    "task.dims=[384,128,64]",
]
RECIPES: dict[str, list[str]] = {
    "layers": ["trainer.max_epochs=5", "losses.similarity.dims=null"],
    "matryoshka": ["trainer.max_epochs=5"],
    "matryoshka_strong": ["trainer.max_epochs=3", "losses.similarity.weight=20"],
    "wide": [
        "data.train_limit=8000",
        "trainer.max_epochs=3",
        f"teacher.paths=[embedded,{TUNED}]",
        "teacher.combine=concatenated",
    ],
}
NOTE = """The teacher and the student give 384 dimensions; 128 and 64 are the first ones, normalised again. *teacher,
PCA*: its vectors turned into the main directions of the validation rows. *matryoshka*: the similarity loss on 384, 128
and 64 dimensions; *layers*: on 384; *strong*: with weight 20 instead of 0.7, for three epochs instead of five; *wide*:
from the 768 numbers of the teacher beside a copy of it that was fine-tuned on MedQuAD's training pairs, three epochs of
8,000 texts. Spearman on STS's 1,379 test pairs; the ratio to the whole teacher has the paired 95 % interval of the first
seed. recall@10: of a question's own answer among the 1,369 answers of MedQuAD's test part, {length} tokens of each. Means
over seeds.

"""


def main() -> None:
    options = parsed(__doc__, "the folder of wiki/, stsb_en/ and medquad/", RECIPES)
    places = [*files(options.data, options.work / "data"), f"paths.cache={options.work / 'cache'}"]
    for seed in options.seeds:
        for recipe in options.only:
            folder = options.work / "runs" / f"{recipe}_{seed}"
            if folder.name not in runs_of("embedding"):
                words = RECIPES[recipe]
                if any(TUNED in word for word in words):
                    other = str(tuned(options.work, options.data / "medquad", options.source))
                    words = [word.replace(TUNED, other) for word in words]
                train(folder, [*COMMON, *words, f"seed={seed}", *places], source=options.source)
                keep("embedding", "Embedding models", folder.name, record(folder, options.data), body)


def files(data: Path, folder: Path) -> list[str]:
    """Writes what the runs read; the words that name it."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = (data / "wiki" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    pairs = {split: list(_pairs(data / "stsb_en" / f"{split}.csv")) for split in ("train", "dev", "test")}
    sentences += [text for pair in pairs["train"] for text in (pair["anchor"], pair["positive"])]
    medquad = _lines(data / "medquad" / "answers_train.jsonl")
    sentences += [text for each in medquad for text in (each["question"], each["answer"])]
    _write(folder / "texts.jsonl", ({"text": text} for text in dict.fromkeys(sentences) if text.strip()))
    for split in ("dev", "test"):
        _write(folder / f"{split}.jsonl", pairs[split])
    names = {"path": "texts", "val_path": "dev", "test_path": "test"}
    return ["data=files", *(f"data.{key}={folder / name}.jsonl" for key, name in names.items())]


def tuned(work: Path, medquad: Path, source: Path) -> Path:
    """The folder of the teacher that learnt for one epoch which answer belongs to a question of MedQuAD's training part."""
    cache = work / "cache_tuned"
    folders = cache / "teachers"
    if not any(folders.glob("*/config.json")):
        answers = {each["qid"]: each["answer"] for each in _lines(medquad / "answers_train.jsonl")}
        groups = _lines(medquad / "groups_train.jsonl")
        own = (group["candidates"][int(np.argmax(group["labels"]))] for group in groups)
        pairs = ({"anchor": each["question"], "positive": answers[key]} for each, key in zip(groups, own, strict=True))
        _write(work / "data" / "pairs.jsonl", pairs)
        words = [*COMMON, "task.monitor=ndcg@10", "data=files", f"data.path={work / 'data' / 'pairs.jsonl'}"]
        words += ["teacher.fit.mode=always", "teacher.fit.epochs=1", f"paths.cache={cache}"]
        train(cache, words, "scripts/cache_teacher.py", source)
    return next(folders.glob("*/config.json")).parent


def _pairs(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        for first, second, score in csv.reader(lines):
            yield {"anchor": first, "positive": second, "score": float(score)}


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def record(folder: Path, data: Path) -> dict[str, Any]:
    test = predictions.load(folder, "test")
    truth = test.truth["score"]
    every = np.ones(len(truth), dtype=bool)
    ranks = bootstrap(
        {
            str((model, size)): scores.spearman(_cosines(test.answers[model], size), truth, every)
            for model in ("teacher", "student")
            for size in (None, *DIMS)
        }
    )
    ratios = {str(size): ranks[str(("student", size))] / ranks[str(("teacher", None))] for size in (None, *DIMS)}
    return {
        "command": command(folder),
        "scores": json.loads((folder / "metrics.json").read_text()),
        "ratio": {size: [each.value, *each.interval] for size, each in ratios.items()},
        "recall@10": recall(folder / "student", data / "medquad"),
    }


def _cosines(answers: Mapping[str, np.ndarray], size: int | None) -> np.ndarray:
    return (scores.unit(answers["anchor"], size) * scores.unit(answers["positive"], size)).sum(1)


def recall(model: Path, medquad: Path) -> dict[str, float]:
    """Dimensions → recall@10 of the own answer, over MedQuAD's test part."""
    answers = {each["qid"]: each["answer"] for each in _lines(medquad / "answers_test.jsonl")}
    groups = _lines(medquad / "groups_test.jsonl")
    keys = list(answers)
    documents = vectors(model, list(answers.values()))
    questions = vectors(model, [group["question"] for group in groups])
    own = np.array([keys.index(group["candidates"][int(np.argmax(group["labels"]))]) for group in groups])
    return {
        str(size): _recall(scores.unit(questions, size), scores.unit(documents, size), own) for size in (None, *DIMS)
    }


def _recall(questions: np.ndarray, answers: np.ndarray, own: np.ndarray) -> float:
    cosines = questions @ answers.T
    return float(((cosines > cosines[np.arange(len(own)), own][:, None]).sum(1) < 10).mean())


@torch.inference_mode()
def vectors(model: Path | str, texts: Sequence[str], length: int = LENGTH) -> np.ndarray:
    """(N, D) means of the last layer's states: transformers alone, as a check of what the run reports."""
    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    parts = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(
            texts[start : start + 64], padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        mask = batch["attention_mask"][..., None]
        parts.append((encoder(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.cat(parts).numpy()


def body(runs: Mapping[str, Any]) -> str:
    lines = [row for recipe, each in by_recipe(runs).items() for row in rows(recipe, each)]
    head = ["recipe", "dimensions", "seeds", "student", "of each seed", "teacher, cut", "teacher, PCA", "student / whole teacher",
            "recall@10"]  # fmt: skip
    return NOTE.format(length=LENGTH) + table(head, lines)


def rows(recipe: str, runs: Sequence[Any]) -> Iterator[list[str]]:
    for size in (None, *DIMS):
        name = "spearman" if size is None else f"spearman_{size}"
        values = [run["scores"][f"test/{name}"] for run in runs]
        teacher = runs[0]["scores"]
        ratio, low, high = runs[0]["ratio"][str(size)]
        pca = teacher.get(f"teacher/test/spearman_pca_{size}")
        yield [
            recipe, str(size or 384), str(len(runs)), f"{np.mean(values):.4f}", ", ".join(f"{value:.4f}" for value in values),
            f"{teacher[f'teacher/test/{name}']:.4f}", "–" if pca is None else f"{pca:.4f}",
            f"{ratio:.4f} ({low:.4f} to {high:.4f})", f"{np.mean([run['recall@10'][str(size)] for run in runs]):.3f}",
        ]  # fmt: skip


if __name__ == "__main__":
    main()
