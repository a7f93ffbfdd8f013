"""What a rewrite is for: does a BM25 search with it find the answer?

    recall@k   share of the relevant documents among the first k
    mrr@10     1 / rank of the first relevant document among the first 10, else 0

The documents are the different `answer`s of the split, of which a row's own is relevant; with a BEIR folder also the documents of
its corpus.jsonl, and a row with a `query_id` has the relevant documents of qrels/ in place of its answer. Expansions are searched
with one by one, and a document's rank is its best rank in any of the results: a union of k documents each.
"""

import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mangakd.core.errors import UserError
from mangakd.data.bm25 import Bm25
from mangakd.data.collection import QRELS, Collection
from mangakd.data.rows import Rows

log = logging.getLogger(__name__)
KEY = "task.search.corpus"
DEPTH = 100
SCORES = ("recall@10", "recall@100", "mrr@10")


@dataclass(frozen=True)
class Index:
    """relevant: the positions of each row's relevant documents; none for rows that no search is about."""

    bm25: Bm25
    relevant: Sequence[frozenset[int]]

    def scores(self, i: int, texts: Sequence[str]) -> dict[str, float]:
        """Of row i, searched with each of its texts."""
        if not self.relevant[i]:
            return dict.fromkeys(SCORES, math.nan)
        ranks: dict[int, int] = {}
        for text in texts:
            for rank, document in enumerate(self.bm25.best(text, DEPTH).tolist(), 1):
                ranks[document] = min(rank, ranks.get(document, rank))
        places = sorted(ranks[document] for document in self.relevant[i] if document in ranks)
        recalls = {f"recall@{k}": sum(rank <= k for rank in places) / len(self.relevant[i]) for k in (10, 100)}
        return {**recalls, "mrr@10": 1 / places[0] if places and places[0] <= 10 else 0.0}


@dataclass(frozen=True)
class Search:
    """corpus: a BEIR folder whose documents are searched, too; None for the answers of the split alone."""

    corpus: str | None = None

    def index(self, rows: Rows) -> Index | None:
        """None, which a log line says, where no row has a relevant document, or where bm25s is not installed.

        Raises UserError for a folder that is none, and for a query_id that the folder does not judge.
        """
        if not any(map(str.strip, rows["answer"])) and not (self.corpus and any(rows["query_id"])):
            log.info("%s: no row has an answer (data.columns.answer), so no search scores the rewrites.", rows.origin)
            return None
        if importlib.util.find_spec("bm25s") is None:
            log.info("no search scores the rewrites: pip install 'mangakd[ranking]' adds it.")
            return None
        return _index(self.corpus, tuple(rows["answer"]), tuple(rows["query_id"]), rows.origin)


@lru_cache(maxsize=4)
def _index(corpus: str | None, answers: tuple[str, ...], queries: tuple[str, ...], origin: str) -> Index:
    """Texts of models and of references are searched for in one index."""
    folder = None if corpus is None else Collection(corpus, KEY)
    texts = [] if folder is None else [*folder.documents]
    places: dict[str, int] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, place)
    judged = {} if folder is None else _judged(folder)
    relevant = []
    for answer, query in zip(answers, queries, strict=True):
        if query and folder is not None:
            relevant.append(_of_query(judged, query, origin))
            continue
        if answer.strip() and answer not in places:
            places[answer] = len(texts)
            texts.append(answer)
        relevant.append(frozenset([places[answer]] if answer.strip() else []))
    return Index(_bm25(tuple(texts)), relevant)


@lru_cache(maxsize=2)
def _bm25(texts: tuple[str, ...]) -> Bm25:
    """Splits whose documents are all in the folder share one index."""
    return Bm25(texts)


def _judged(folder: Collection) -> dict[str, frozenset[int]]:
    """The relevant documents of each query, of all splits."""
    return {
        query: frozenset(document for document, grade in grades.items() if grade > 0)
        for split in QRELS
        if folder.has(split)
        for query, grades in folder.judgements(split).items()
    }


def _of_query(judged: Mapping[str, frozenset[int]], query: str, origin: str) -> frozenset[int]:
    if query not in judged:
        raise UserError(
            f"{origin} has the query_id {query}, which no file of {KEY}'s qrels/ judges. Correct it, or leave "
            "data.columns.query_id out: the row's answer is then the document to find."
        )
    return judged[query]
