"""Where queries with documents and grades come from, beside files of groups: triples, and folders in BEIR's layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.collection import LAYOUT, QRELS, Collection
from mangakd.data.columns import Column, table_rows
from mangakd.data.notices import Notices
from mangakd.data.rows import Rows, identity
from mangakd.data.scored import Scores, read_scores
from mangakd.data.sources import COLUMNS, Files
from mangakd.data.split import KEYS, split_off
from mangakd.data.tables import existing, read_table


@dataclass
class Triples(Files):
    """Files of a query, a relevant and another document a row. Rows of one query are one group, with the grades 1 and 0."""

    query_column: str | int = "query"
    positive_column: str | int = "positive"
    negative_column: str | int = "negative"

    def __post_init__(self) -> None:
        self.reads = ("path", "val_path", "test_path")

    def _rows(self, path: str | None, key: str) -> Rows:
        columns = {
            name: Column("text", getattr(self, f"{name}_column"), f"data.{name}_column")
            for name in ("query", "positive", "negative")
        }
        groups = _groups(table_rows(read_table(existing(path, key), key), columns, f"{key}={path}"))
        return pairs_of(groups) if "anchor" in self.needs else groups


def _groups(triples: Rows) -> Rows:
    """A group for each query, at its first row. A document that is relevant in any row of its query is relevant."""
    groups: dict[str, tuple[int, dict[str, float]]] = {}
    notices = Notices(triples.origin, triples.unit)
    for i, (query, positive, negative) in enumerate(
        zip(*(triples[name] for name in ("query", "positive", "negative")), strict=True)
    ):
        _, grades = groups.setdefault(identity(query), (i, {}))
        for document, grade in ((positive, 1.0), (negative, 0.0)):
            if grades.setdefault(document, grade) != grade:
                notices.add(
                    "documents that are positive and negative for one query, read as positive",
                    triples.numbers[i],
                    document,
                )
                grades[document] = 1.0
    notices.log()
    firsts = triples.take([i for i, _ in groups.values()])
    columns: dict[str, list[Any]] = {
        "query": firsts["query"],
        "documents": [tuple(grades) for _, grades in groups.values()],
        "grades": [tuple(grades.values()) for _, grades in groups.values()],
    }
    return Rows(columns, firsts.numbers, triples.origin, triples.unit)


def pairs_of(groups: Rows) -> Rows:
    """For tasks of two texts: each query with each of its relevant documents, and all others of its group as negatives."""
    columns: dict[str, list[Any]] = {"anchor": [], "positive": [], "negatives": []}
    owners = []
    for i, (query, documents, grades) in enumerate(
        zip(*map(groups.__getitem__, ("query", "documents", "grades")), strict=True)
    ):
        graded = [*zip(documents, grades, strict=True)]
        for positive in (document for document, grade in graded if grade > 0):
            columns["anchor"].append(query)
            columns["positive"].append(positive)
            columns["negatives"].append(tuple(document for document, grade in graded if grade == 0))
            owners.append(groups.numbers[i])
    return Rows(columns, owners, groups.origin, groups.unit)


@dataclass
class Beir(Files):
    """A folder in BEIR's layout; val_path and test_path may be other such folders, and each of the three a file of groups.

    candidates: documents of a query, its first ones by BM25 over the corpus, or by the scores of `run`, a file of ids
    (data/scored.py). Train also has all its relevant documents. Tasks of two texts read each query with each of its relevant
    documents, without candidates.
    """

    candidates: int = 50
    run: str | None = None

    def __post_init__(self) -> None:
        self.reads = ("path", "val_path", "test_path", *COLUMNS)

    def read(self) -> dict[str, Rows]:
        if not isinstance(self.candidates, int) or self.candidates < 1:
            raise UserError(f"data.candidates={self.candidates} must be a whole number from 1 on.")
        given = {"train": self.path, "validation": self.val_path, "test": self.test_path}
        places = {split: (path, KEYS[split]) for split, path in given.items() if path is not None or split == "train"}
        folders: dict[str | None, Collection] = {
            path: Collection(path, key) for path, key in places.values() if path and Path(path).expanduser().is_dir()
        }
        if whole := folders.get(self.path):
            self._check_train(whole)
            places = {split: (self.path, "data.path") for split in QRELS if whole.has(split)} | places
        queries = {split: folders[path].queries_of(split) for split, (path, _) in places.items() if path in folders}
        if missing := [split for split in QRELS if split not in places and "train" in queries]:
            # Before train gets all its relevant documents, which the others must not have.
            places |= dict.fromkeys(missing, places["train"])
            queries |= split_off(queries["train"], missing, self.split_seed, {"query": "text"})
        run = None if self.run is None else _best_first(read_scores(self.run, "data.run"), self.run)
        parts = {split: self._rows(path, key) for split, (path, key) in places.items() if split not in queries}
        for split, each in queries.items():
            folder = folders[places[split][0]]
            pairs = "anchor" in self.needs
            parts[split] = (
                pairs_of(folder.relevant(each))
                if pairs
                else folder.groups(each, self.candidates, split == "train", run)
            )
        return parts

    def _check_train(self, folder: Collection) -> None:
        if not folder.has("train"):
            files = ", ".join(f"{QRELS[split]}.tsv" for split in QRELS if folder.has(split)) or "no split"
            raise UserError(
                f"data.path={self.path} has no qrels/train.tsv; qrels has {files}. A folder to train on holds {LAYOUT}. To score "
                f"on this one, set data.test_path={self.path}, and data.path to training data."
            )


def _best_first(scores: Scores, path: str) -> dict[str, list[str]]:
    """Each query's documents, the best first; ties in the order of the file."""
    if not scores.ids:
        raise UserError(
            f"data.run={path} holds texts; a run names queries and documents by ids. Groups of texts are read by data.path."
        )
    sign = 1 if scores.ranks else -1
    documents: dict[str, list[tuple[float, str]]] = {}
    for (query, document), score in scores.of.items():
        documents.setdefault(query, []).append((sign * score, document))
    return {query: [name for _, name in sorted(each, key=lambda pair: pair[0])] for query, each in documents.items()}
