"""Reranking: order the documents of a query. `task=rerank` reads pairs of query and document with a cross-encoder."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isnan
from typing import Any, ClassVar

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.core.spec import Head, Kind
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows
from mangakd.data.source import Corpus
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.served import Served
from mangakd.losses.groups import Groups
from mangakd.losses.list_net import ListNetLoss
from mangakd.tasks.base import Model, Task
from mangakd.tasks.meters import Meters
from mangakd.tasks.rerank import word_search
from mangakd.tasks.rerank.encode import encoded
from mangakd.tasks.rerank.judge import RerankJudge
from mangakd.tasks.rerank.meters import meters
from mangakd.tasks.rerank.served import served

log = logging.getLogger(__name__)


@dataclass
class Rerank(Task):
    """sharpness: of the own loss (losses/list_net.py), from which the baseline and a teacher that is fine-tuned learn."""

    units: ClassVar[tuple[str, ...]] = ("labels", "groups", "ordered")
    shows_untrained: ClassVar[bool] = True  # layers of a fine-tuned teacher already rank better than chance
    pairs: ClassVar[bool] = True
    tokenised_early: ClassVar[bool] = True
    name: str = "rerank"
    kind: Kind = "score"
    sharpness: float = 1.0
    judge: Judge = field(default_factory=RerankJudge)
    monitor: str = "ndcg_exp@3"

    @property
    def columns(self) -> Columns:
        return {"query": "text", "documents": "texts", "grades": "numbers"}

    def prepare(self, corpus: Corpus) -> Corpus:
        """Raises UserError for a row with more or fewer grades than documents, a grade below 0, or one document under two
        grades, and for a split that teaches or tests no order."""
        for name, rows in corpus.splits.items():
            for i in range(len(rows)):
                check_row(rows, i)
            _tell_unjudged(name, rows)
            if not any(len({0.0 if isnan(grade) else grade for grade in grades}) > 1 for grades in rows["grades"]):
                raise UserError(
                    f"no query of {name} has documents of different grades: there is no order to learn or to test. Give the "
                    "relevant documents a higher grade than the others (data.columns.grades)."
                )
        return corpus

    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        return Head("score", 1)

    def encode(self, rows: Rows, head: Head, tokenise: Tokenise) -> EncodedSplit:
        return encoded(rows, tokenise)

    def sequences(self, rows: Rows) -> Iterable[Sequence[tuple[str, ...]]]:
        return (
            [(query, document) for document in documents]
            for query, documents in zip(rows["query"], rows["documents"], strict=True)
        )

    def own_loss(self) -> ListNetLoss:
        return ListNetLoss(sharpness=self.sharpness)

    def ask(self, model: Model, batch: Batch, teacher: Model | None = None) -> dict[str, Tensor]:
        """logits (B, G): the scores of each query's documents, -inf in padding."""
        return {"logits": Groups.of(batch).padded(model(batch).answer, -torch.inf)}

    def served(self, rows: Rows) -> Served:
        return served(rows, self.judge)

    def references(self, rows: Rows, split: EncodedSplit) -> dict[str, dict[str, Tensor]]:
        return {"BM25": word_search.scores(rows)} if word_search.installed() else {}

    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        return meters(self.judge, head, teacher, together)


def _tell_unjudged(name: str, rows: Rows) -> None:
    grades = [*chain.from_iterable(rows["grades"])]
    if missing := sum(map(isnan, grades)):
        log.info(
            "%s: %d of %d documents of %s have no grade; they count as grade 0, and judged@10 says how many of the first ten "
            "of a query have one.",
            rows.origin, missing, len(grades), name,
        )  # fmt: skip


def check_row(rows: Rows, i: int) -> None:
    documents, grades = rows["documents"][i], rows["grades"][i]
    if len(documents) != len(grades):
        raise UserError(
            f"{rows.where(i)} has {len(documents)} documents and {len(grades)} grades. Give each document one grade "
            "(data.columns.documents, data.columns.grades)."
        )
    if (least := min(grade for grade in (*grades, 0.0) if not isnan(grade))) < 0:
        raise UserError(
            f"{rows.where(i)} has the grade {least:g}, and 0 is the least: that of a document that is not relevant. "
            "Correct the row, or leave the document out."
        )
    first: dict[str, float] = {}
    for document, grade in zip(documents, grades, strict=True):
        if not isnan(grade) and first.setdefault(document, grade) != grade:
            raise UserError(
                f"{rows.where(i)} has one document under the grades {first[document]:g} and {grade:g}: {document[:60]!r}. "
                "Leave one out."
            )
