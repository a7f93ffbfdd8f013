"""`teacher=scores`: scores of queries and documents that another model gave, in a file."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Kind
from mangakd.data.collection import Collection
from mangakd.data.scored import Scores as File
from mangakd.data.scored import read_scores
from mangakd.data.sequence_texts import identities_of
from mangakd.teachers.lookup import KEY, Answers, LookupOptions

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Scores(LookupOptions):
    """teacher=scores. path: a file (data/scored.py). texts: a folder in BEIR's layout, where the ids in the file have texts."""

    noun: ClassVar[str] = "score"
    nouns: ClassVar[str] = "scores"
    kind: ClassVar[Kind] = "score"
    pairs: ClassVar[bool] = True
    texts: str | None = None

    @cached_property
    def answers(self) -> Answers:
        file = read_scores(self.path, KEY)
        if file.ids and file.ranks:
            raise UserError(
                f"{KEY}={self.path} holds 1, 2, 3, … for each query: ranks, not scores. Give the teacher's scores."
            )
        pairs = self._texts(file) if file.ids else file.of
        scores = {identities_of(pair): score for pair, score in pairs.items()}
        table = np.array([*scores.values()], np.float32)[:, None]
        return Answers({pair: i for i, pair in enumerate(scores)}, table)

    def _texts(self, file: File) -> dict[tuple[str, str], float]:
        """The scores of those ids that are in the folder; a run of a whole collection may hold many others."""
        folder = Path(self.texts).expanduser() if self.texts else None
        if folder is None or not folder.is_dir():
            raise UserError(
                f"{KEY}={self.path} names queries and documents by ids, and teacher.texts={self.texts} is no folder with "
                "queries.jsonl and corpus.jsonl, which hold their texts. Set teacher.texts."
            )
        collection = Collection(str(folder), "teacher.texts")
        queries, documents = collection.texts("queries.jsonl"), collection.texts("corpus.jsonl")
        pairs = {
            (queries[query], documents[document]): score
            for (query, document), score in file.of.items()
            if query in queries and document in documents
        }
        log.info("%s=%s: %d of its %d pairs are in %s.", KEY, self.path, len(pairs), len(file.of), folder)
        return pairs
