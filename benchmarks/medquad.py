"""MedQuAD's questions with ten answers each as files of groups: query, documents, grades.

    python benchmarks/medquad.py ../shared/data/medquad FOLDER [--train-documents 5]

The folder holds answers_{train,dev,test}.jsonl (qid, answer) and groups_{train,dev,test}.jsonl (question, candidates, labels).
Writes FOLDER/{train,dev,test}.jsonl for `data=files`. The grades are constructed: 2 is the question's own answer, 1 another
answer about the same disease, 0 one about another disease. A training query keeps its own answer and the first of the others, as
many as --train-documents says: their order in groups_train.jsonl is random.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPLITS = ("train", "dev", "test")


def groups(source: Path, split: str, most: int = 10) -> Iterator[dict[str, Any]]:
    """most: documents of a query; its own answer stays."""
    answers = {each["qid"]: each["answer"] for each in _lines(source / f"answers_{split}.jsonl")}
    for group in _lines(source / f"groups_{split}.jsonl"):
        grades = group["labels"]
        order = sorted(range(len(grades)), key=lambda at: grades[at] != max(grades))[:most]
        documents = [answers[group["candidates"][at]] for at in sorted(order)]
        yield {"query": group["question"], "documents": documents, "grades": [grades[at] for at in sorted(order)]}


def write(source: Path, folder: Path, train_documents: int = 10) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for group in groups(source, split, train_documents if split == "train" else 10):
                file.write(json.dumps(group, ensure_ascii=False) + "\n")


def write_types(source: Path, folder: Path) -> None:
    """Write FOLDER/{train,dev,test}.jsonl of the questions (text) and their types (label), for data=files.

    A type without a training question is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    types: set[str] = set()
    for split in SPLITS:
        asked = {each["question"] for each in _lines(source / f"groups_{split}.jsonl")}
        rows = [(each["question"], each["qtype"]) for each in _lines(source / f"answers_{split}.jsonl")]
        rows = [(question, label) for question, label in dict(rows).items() if question in asked]
        types = types or {label for _, label in rows}
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for question, label in rows:
                if label in types:
                    file.write(json.dumps({"text": question, "label": label}, ensure_ascii=False) + "\n")


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train-documents", type=int, default=10)
    arguments = parser.parse_args()
    write(arguments.source, arguments.folder, arguments.train_documents)
