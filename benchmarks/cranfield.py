"""Does a reranker that learnt from MedQuAD rank texts of another field? Cranfield's 225 queries, the first 50 documents by BM25.

    python benchmarks/cranfield.py --data ../shared/data/cranfield --work PATH --student layers_0=RUN/student [--student …]

Writes the collection in BEIR's layout to PATH, which `data=beir data.test_path=PATH` reads too, and results/cranfield.md. Models
are read by transformers alone. Intervals are of the paired bootstrap over queries.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from results_file import table, write
from seed_runs import text
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mangakd.data.collection import Collection
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.tasks.rerank import metrics
from mangakd.tasks.rerank.metrics import Ranking

CANDIDATES, LENGTH = 50, 256
NOTE = """NDCG and MRR over the {queries} queries with a relevant document among BM25's first {candidates}; the best
order of these has 1. At most {length} tokens of a pair. The students never saw a text of this field.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--student", action="append", required=True, metavar="NAME=FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    to_beir(options.data, options.work)
    collection = Collection(str(options.work), "--work")
    rows = collection.groups(collection.queries_of("test"), CANDIDATES, False, None)
    documents: list[tuple[str, ...]] = rows["documents"]
    scores = {"BM25": [-np.arange(len(each), dtype=np.float64) for each in documents]}  # candidates come in this order
    for each in options.student:
        name, _, folder = each.partition("=")
        scores[name] = list(ranked(folder, rows["query"], documents))
    grades = padded([np.array(each) for each in rows["grades"]], np.nan)
    save({name: padded(each, -np.inf) for name, each in scores.items()}, grades)


def to_beir(data: Path, folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    xml = (data / "cran.all.1400.xml").read_text(encoding="utf-8")
    documents = ElementTree.fromstring(f"<all>{re.sub('&(?!amp;|lt;|gt;)', '&amp;', xml)}</all>")
    corpus = [{"_id": words(each, "docno"), "title": "", "text": words(each, "text")} for each in documents.iter("doc")]
    topics = ElementTree.fromstring((data / "cran.qry.xml").read_bytes())
    queries = [{"_id": str(i), "text": words(each, "title")} for i, each in enumerate(topics.iter("top"), 1)]
    lines(folder / "corpus.jsonl", corpus)
    lines(folder / "queries.jsonl", queries)
    judged = [line.split() for line in (data / "cranqrel.trec.txt").read_text().splitlines() if line.strip()]
    known = {each["_id"] for each in corpus}
    qrels = "".join(
        f"{query}\t{document}\t{max(int(grade), 0)}\n" for query, _, document, grade in judged if document in known
    )
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")


def words(element: ElementTree.Element, tag: str) -> str:
    return " ".join((element.findtext(tag) or "").split())


def lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@torch.inference_mode()
def ranked(folder: str, queries: list[str], documents: list[tuple[str, ...]]) -> Iterator[np.ndarray]:
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
    )
    for query, each in zip(queries, documents, strict=True):
        order = sorted(range(len(each)), key=lambda i: len(each[i]))
        scores = np.empty(len(each))
        for start in range(0, len(each), 10):
            part = order[start : start + 10]
            pairs = tokenizer([query] * len(part), [each[i] for i in part], padding=True, truncation="only_second",
                              max_length=LENGTH, return_tensors="pt")  # fmt: skip
            scores[part] = model(**pairs).logits[:, 0].numpy()
        yield scores


def padded(rows: list[np.ndarray], fill: float) -> np.ndarray:
    """(N, G)."""
    full = np.full((len(rows), max(map(len, rows))), fill)
    for i, each in enumerate(rows):
        full[i, : len(each)] = each
    return full


def save(scores: Mapping[str, np.ndarray], grades: np.ndarray) -> None:
    statistics = {}
    for name, each in scores.items():
        ranking = Ranking.of(each, grades)
        statistics[f"{name} ndcg@10"] = metrics.ndcg(ranking, 10, exponential=True)
        statistics[f"{name} ndcg@3"] = metrics.ndcg(ranking, 3, exponential=True)
        statistics[f"{name} mrr@10"] = metrics.mrr(ranking, 10, None)
    estimates = bootstrap(statistics)
    measures = ("ndcg@10", "ndcg@3", "mrr@10")
    rows = [
        [name, *(text(estimates[f"{name} {measure}"]) for measure in measures),
         *(["–"] if name == "BM25" else [text(estimates[f"{name} ndcg@10"] - estimates["BM25 ndcg@10"], "{:+.3f}")])]
        for name in scores
    ]  # fmt: skip
    graded = int(((np.nan_to_num(grades) > 0).any(1)).sum())
    note = NOTE.format(queries=graded, candidates=CANDIDATES, length=LENGTH)
    versions = {package: version(package) for package in ("torch", "transformers", "bm25s")}
    content = {"versions": versions, "scores": {name: [each.value, *each.interval] for name, each in estimates.items()}}
    body = note + table(["", *measures, "ndcg@10 − BM25"], rows)
    print(write("cranfield", "MedQuAD's rerankers on Cranfield", content, body).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
