"""MedQuAD's questions with ten answers each as files of groups: query, documents, grades.

    python benchmarks/medquad.py ../shared/data/medquad FOLDER

The folder holds answers_{train,dev,test}.jsonl (qid, answer) and groups_{train,dev,test}.jsonl (question, candidates, labels).
Writes FOLDER/{train,dev,test}.jsonl for `data=files`. The grades are constructed: 2 is the question's own answer, 1 another
answer about the same disease, 0 one about another disease.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPLITS = ("train", "dev", "test")


def groups(source: Path, split: str) -> Iterator[dict[str, Any]]:
    answers = {each["qid"]: each["answer"] for each in _lines(source / f"answers_{split}.jsonl")}
    for group in _lines(source / f"groups_{split}.jsonl"):
        documents = [answers[answer] for answer in group["candidates"]]
        yield {"query": group["question"], "documents": documents, "grades": group["labels"]}


def write(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(group, ensure_ascii=False) + "\n" for group in groups(source, split))


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(arguments.source, arguments.folder)
