"""A collection in BEIR's folder layout: corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv.

Source: Thakur et al. 2021 (arXiv:2104.08663). A document is its title and its text with a blank between them, as there.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.bm25 import Bm25
from mangakd.data.cells import CellError, number_of, spelled
from mangakd.data.notices import Notices
from mangakd.data.rows import Rows, whole_texts
from mangakd.data.tables import Table, existing, read_table, text_of

log = logging.getLogger(__name__)
LAYOUT = "corpus.jsonl (_id, title, text), queries.jsonl (_id, text), qrels/*.tsv (query-id, corpus-id, score)"
QRELS = {"train": "train", "validation": "dev", "test": "test"}
Judgements = dict[int, float]  # position of a document → its grade
Run = Mapping[str, Sequence[str]]  # id of a query → ids of its documents


class Collection:
    """path: the folder. key: what the user set it by, for messages. Each file is read when it is needed."""

    def __init__(self, path: str, key: str) -> None:
        self._folder, self._key = Path(path).expanduser(), key

    def has(self, split: str) -> bool:
        return self._file(split).is_file()

    def queries_of(self, split: str) -> Rows:
        """The queries that the split judges, each with its judgements, in the order of queries.jsonl.

        Raises UserError for grades that are negative or no number, and for queries that are not there or have two grades for a
        document. Judgements of documents that are not there are left out, with a warning.
        """
        judged = self.judgements(split)
        table, origin = self._table("queries.jsonl", ("_id", "text"))
        ids = self._ids(table, origin)
        if unknown := next((query for query in judged if query not in ids), None):
            raise UserError(
                f"{self._origin(self._file(split))}: the query {unknown} is not in {origin}. Add it, or remove it."
            )
        places = [i for query, i in ids.items() if query in judged]
        texts, judgements = table.column("text"), {ids[query]: each for query, each in judged.items()}
        numbers = [table.numbers[i] for i in places]
        columns: dict[str, list[Any]] = {
            "id": [query for query in ids if query in judged],
            "query": [text_of(texts[i], f"line {table.numbers[i]} of {origin}", self._key) for i in places],
            "judgements": [judgements[i] for i in places],
        }
        return Rows(columns, numbers, origin, table.unit)

    def texts(self, name: str) -> dict[str, str]:
        """The texts of queries.jsonl or corpus.jsonl by their ids."""
        if name == "corpus.jsonl":
            positions, documents = self._corpus
            return {document: documents[i] for document, i in positions.items()}
        table, origin = self._table(name, ("_id", "text"))
        texts = [text_of(text, origin, self._key) for text in table.column("text")]
        return dict(zip(self._ids(table, origin), texts, strict=True))

    def relevant(self, queries: Rows) -> Rows:
        """Each query with its relevant documents alone."""
        columns: dict[str, list[Any]] = {"query": queries["query"], "documents": [], "grades": []}
        for judgements in queries["judgements"]:
            grades = {self._corpus[1][i]: grade for i, grade in judgements.items() if grade > 0}
            columns["documents"].append(tuple(grades))
            columns["grades"].append(tuple(grades.values()))
        return Rows(columns, queries.numbers, queries.origin, queries.unit)

    def groups(self, queries: Rows, count: int, add: bool, run: Run | None = None) -> Rows:
        """Each query with its best `count` candidates and their grades: NaN for those that nobody judged.

        run: the candidates of each query's id, best first; None: by BM25. add: with the relevant documents that are no
        candidates. Logs the candidates' recall. Queries without any document are left out, with a warning.
        """
        if run is None:
            candidates = [self._bm25.best(query, count).tolist() for query in queries["query"]]
        else:
            candidates = [self._of_run(run.get(query, ()))[:count] for query in queries["id"]]
        self._log_recall(queries, candidates, count, add)
        columns: dict[str, list[Any]] = {"query": queries["query"], "documents": [], "grades": []}
        for best, judgements in zip(candidates, queries["judgements"], strict=True):
            hits = set(best)
            places = [*best, *(i for i, grade in judgements.items() if add and grade > 0 and i not in hits)]
            grades: dict[str, float] = {}  # equal texts are one document, with the best of their grades
            for i in places:
                text = self._corpus[1][i]
                grades[text] = float(np.fmax(grades.get(text, math.nan), judgements.get(i, math.nan)))
            columns["documents"].append(tuple(grades))
            columns["grades"].append(tuple(grades.values()))
        rows = Rows(columns, queries.numbers, queries.origin, queries.unit)
        notices = Notices(queries.origin, queries.unit)
        for i, documents in enumerate(rows["documents"]):
            if not documents:
                notices.add("queries without any candidate, left out", rows.numbers[i], rows["query"][i])
        notices.log()
        return rows.take([i for i, documents in enumerate(rows["documents"]) if documents])

    def _of_run(self, ids: Sequence[str]) -> list[int]:
        """Positions of the documents that are there."""
        return [self._corpus[0][name] for name in ids if name in self._corpus[0]]

    def _log_recall(self, queries: Rows, candidates: list[list[int]], count: int, add: bool) -> None:
        recalls = [
            len(relevant & {*best}) / len(relevant)
            for best, judgements in zip(candidates, queries["judgements"], strict=True)
            if (relevant := {i for i, grade in judgements.items() if grade > 0})
        ]
        log.info(
            "%s: %d queries; their first %d candidates hold %.1f %% of the relevant documents of a query on average%s",
            queries.origin, len(queries), count, 100 * float(np.mean(recalls)) if recalls else math.nan,
            "; the others are added to train" if add else "; no others are added, which bounds the scores of every ranker",
        )  # fmt: skip

    @cached_property
    def _corpus(self) -> tuple[dict[str, int], list[str]]:
        """(positions of the documents that have a text by their ids, all documents)."""
        table, origin = self._table("corpus.jsonl", ("_id", "text"))
        titles = table.column("title") if "title" in table.names else [""] * len(table.numbers)
        documents = []
        for number, title, text in zip(table.numbers, titles, table.column("text"), strict=True):
            where = f"{table.unit} {number} of {origin}"
            parts = (text_of(part, where, self._key).strip() for part in (title, text))
            documents.append(" ".join(filter(None, parts)))
        ids = self._ids(table, origin)
        if blank := [name for name, i in ids.items() if not documents[i]]:
            log.warning("%s: documents without a text, left out: %d; first: %s", origin, len(blank), blank[0])
        positions = {name: i for name, i in ids.items() if documents[i]}
        return positions, whole_texts(documents, table.numbers, origin, table.unit)

    @property
    def documents(self) -> list[str]:
        """The texts of corpus.jsonl, blank ones included: judgements count them."""
        return self._corpus[1]

    @cached_property
    def _bm25(self) -> Bm25:
        return Bm25(self._corpus[1])

    def judgements(self, split: str) -> dict[str, Judgements]:
        """Of each query of the split. Raises UserError as `queries_of`."""
        table, origin = self._table(
            str(self._file(split).relative_to(self._folder)), ("query-id", "corpus-id", "score")
        )
        judged: dict[str, Judgements] = {}
        notices = Notices(origin, table.unit)
        cells = zip(table.numbers, *map(table.column, ("query-id", "corpus-id", "score")), strict=True)
        for number, query, document, score in cells:
            where = f"{table.unit} {number} of {origin}"
            grade, judgements = _grade(score, where), judged.setdefault(_id(query, where), {})
            place = self._corpus[0].get(_id(document, where))
            if place is None:
                notices.add("judgements of documents that corpus.jsonl does not have, left out", number, str(document))
            elif judgements.setdefault(place, grade) != grade:
                raise UserError(
                    f"{where} gives the document {document} of the query {query} the grade {grade:g}, and an earlier line "
                    f"{judgements[place]:g}. Remove one of them."
                )
        notices.log()
        return judged

    def _ids(self, table: Table, origin: str) -> dict[str, int]:
        """Of the rows. Raises UserError for one that is missing or there twice."""
        ids: dict[str, int] = {}
        for i, (number, value) in enumerate(zip(table.numbers, table.column("_id"), strict=True)):
            where = f"{table.unit} {number} of {origin}"
            if ids.setdefault(_id(value, where), i) != i:
                raise UserError(f"{where} has the _id {value}, which an earlier line has. Give each its own.")
        return ids

    def _table(self, name: str, columns: tuple[str, ...]) -> tuple[Table, str]:
        file = self._folder / name
        table, origin = read_table(existing(str(file), self._key), self._key), self._origin(file)
        if missing := [column for column in columns if column not in table.names]:
            raise UserError(
                f"{origin} has no column {missing[0]!r}; it has {', '.join(table.names)}. A BEIR folder holds {LAYOUT}."
            )
        return table, origin

    def _file(self, split: str) -> Path:
        return self._folder / "qrels" / f"{QRELS[split]}.tsv"

    def _origin(self, file: Path) -> str:
        return f"{self._key}={file}"


def _id(value: Any, where: str) -> str:
    try:
        if (text := spelled(value)) and text.strip():
            return text.strip()
    except CellError as error:
        raise UserError(f"{where} {error}, not an id. Correct it.") from error
    raise UserError(f"{where} has no id. Fill or remove it.")


def _grade(value: Any, where: str) -> float:
    try:
        grade = number_of(value)
    except CellError as error:
        raise UserError(f"{where} {error}, not a grade. Correct it.") from error
    if math.isnan(grade) or grade < 0:
        raise UserError(f"{where} has the grade {value}: a grade is 0 (not relevant) or more. Correct it.")
    return grade
