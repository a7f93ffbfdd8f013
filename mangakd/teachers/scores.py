"""`ScoreTeacher`: scores of queries and documents that another model gave and a file keeps. No model answers in this run.

The scores are found by the hash of a pair's tokens, like those of a store (cached.py), so that shuffling never misaligns them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.data.collection import Collection
from mangakd.data.notices import short
from mangakd.data.rows import Rows, identity
from mangakd.data.scored import Scores as File
from mangakd.data.scored import read_scores
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.teachers.options import Member, TeacherContext, TeacherOptions

log = logging.getLogger(__name__)
KEY = "teacher.path"


class ScoreTeacher(TeacherProvider):
    """keys (N) int64: of pairs, as in a batch. scores (N) float32. spec: its name and head; there are no layers."""

    def __init__(self, keys: np.ndarray, scores: np.ndarray, spec: ModelSpec) -> None:
        self.spec = spec
        self._keys, first = np.unique(keys, return_index=True)
        self._scores = torch.from_numpy(scores[first])

    @property
    def gives(self) -> Need:
        return Need(answer=True)

    @property
    def fingerprint(self) -> str:
        return digest(self._keys.tobytes(), self._scores.numpy().tobytes())

    def prepare(self, device: torch.device, need: Need) -> "ScoreTeacher":
        return self

    def __call__(self, batch: Batch) -> Outputs:
        """logits (S, 1). Raises KeyError for a pair of another split than those it was made for."""
        key, mask = batch["key"], batch["teacher"]["attention_mask"]
        batch_keys = key.cpu().numpy()
        places = np.minimum(np.searchsorted(self._keys, batch_keys), len(self._keys) - 1)
        if (self._keys[places] != batch_keys).any():
            raise KeyError("a pair without a score")
        return Outputs(self._scores[places][:, None].to(key.device), mask)


@dataclass(kw_only=True)
class Scores(TeacherOptions):
    """teacher=scores. path: a file (data/scored.py). texts: a folder in BEIR's layout, where the ids in the file have texts."""

    texts: str | None = None

    @property
    def models(self) -> list[Member]:
        return []

    def gives(self, spec: ModelSpec) -> Need:
        return Need(answer=True)

    def check(self, rows: Mapping[str, Rows]) -> None:
        for split, each in rows.items():
            self._of(split, each)

    def provider(self, context: TeacherContext) -> ScoreTeacher:
        keys = [split.teacher.keys for split in context.splits.values()]
        scores = [self._of(name, context.rows[name]) for name in context.splits]
        if [len(each) for each in keys] != [len(each) for each in scores]:
            raise UserError(
                f"{KEY}={self.path} holds a score for each document, and this task reads rows in another way."
            )
        spec = ModelSpec(f"scores of {Path(self.path).name}", 0, 0, 0, context.head)
        return ScoreTeacher(np.concatenate(keys), np.concatenate(scores), spec)

    @cached_property
    def _scores(self) -> dict[tuple[str, str], float]:
        """By texts, without differences in blanks."""
        file = read_scores(self.path, KEY)
        if file.ids and file.ranks:
            raise UserError(
                f"{KEY}={self.path} holds 1, 2, 3, … for each query: ranks, not scores. Give the teacher's scores."
            )
        pairs = self._texts(file) if file.ids else file.of
        return {(identity(query), identity(document)): score for (query, document), score in pairs.items()}

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

    def _of(self, split: str, rows: Rows) -> np.ndarray:
        """(S) float32, of all pairs of a split in their order. Raises UserError where some have no score."""
        if [type(values[0]) for values in rows.columns.values()] != [str, tuple]:
            raise UserError(
                "teacher=scores gives scores of a query and its documents, and this task reads "
                f"{', '.join(rows.columns)}. Choose another teacher."
            )
        pairs = [
            (i, place, query, document)
            for i, (query, documents) in enumerate(zip(*rows.columns.values(), strict=True))
            for place, document in enumerate(documents, 1)
        ]
        scores = [self._scores.get((identity(query), identity(document))) for _, _, query, document in pairs]
        lacking = [pair for pair, score in zip(pairs, scores, strict=True) if score is None]
        if lacking:
            i, place, query, document = lacking[0]
            raise UserError(
                f"{KEY}={self.path} has no score for {len(lacking)} of the {len(pairs)} pairs of {split}; the first is "
                f"document {place}, {short(document)}, of {short(query)} in {rows.where(i)}. Score them too, or leave them out."
            )
        return np.array(scores, np.float32)
