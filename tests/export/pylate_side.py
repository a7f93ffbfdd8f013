"""Run where PyLate is installed, without mangakd: python pylate_side.py < questions as JSON

A question is {"folder", "queries", "documents"}, and "save", where the loaded model is saved; options of ColBERT stand beside
them. Prints a JSON list of scores (N): of queries[i] and documents[i].
"""

import json
import sys
from typing import Any

from pylate.models import ColBERT


def answer(
    folder: str, queries: list[str], documents: list[str], save: str | None = None, **options: Any
) -> list[float]:
    model = ColBERT(folder, device="cpu", **options)
    if save is not None:
        model.save(save)
    sides = model.encode(queries, is_query=True), model.encode(documents, is_query=False)
    return [float((query @ document.T).max(1).sum()) for query, document in zip(*sides, strict=True)]


if __name__ == "__main__":
    print(json.dumps([answer(**question) for question in json.load(sys.stdin)]))
