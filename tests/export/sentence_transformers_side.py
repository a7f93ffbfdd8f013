"""Run where sentence-transformers is installed, without mangakd: python sentence_transformers_side.py < questions as JSON

A question is {"folder", "texts"} for a SentenceTransformer or {"folder", "pairs"} for a CrossEncoder; with "save", the loaded
model is saved there. Prints a JSON list of {"plain", "query", "document"} (N, D), {"scores"} (N), or {"error"}.
"""

import json
import sys
from typing import Any

from sentence_transformers import CrossEncoder, SentenceTransformer


def answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        if "pairs" in question:
            model = CrossEncoder(question["folder"], device="cpu")
            found = {"scores": model.predict(question["pairs"]).tolist()}
        else:
            model = SentenceTransformer(question["folder"], device="cpu")
            ways = {"plain": model.encode, "query": model.encode_query, "document": model.encode_document}
            found = {name: way(question["texts"]).tolist() for name, way in ways.items()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    if "save" in question:
        model.save(question["save"])
    return found


if __name__ == "__main__":
    print(json.dumps([answer(question) for question in json.load(sys.stdin)]))
