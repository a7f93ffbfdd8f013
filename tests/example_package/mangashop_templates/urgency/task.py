"""How urgent a question is, as a number: one text and one score a row."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows
from mangakd.data.source import Corpus
from mangakd.evaluation.judge import Judge
from mangakd.tasks.base import Task
from mangakd.tasks.meters import Meter, Meters, Tensors
from mangashop_templates.urgency.judge import UrgencyJudge, pearson_of, rmse_of
from mangashop_templates.urgency.loss import ScoreLoss


@dataclass
class Urgency(Task):
    """most: scores lie in [0, most]."""

    name: str = "urgency"
    kind: Kind = "score"
    most: float = 1.0
    judge: Judge = field(default_factory=UrgencyJudge)
    monitor: str = "rmse"

    @property
    def columns(self) -> Columns:
        return {"text": "text", "score": "number"}

    def prepare(self, corpus: Corpus) -> Corpus:
        """Raises UserError for a score outside [0, most] and for scores that are all the same."""
        for rows in corpus.splits.values():
            for i, score in enumerate(rows["score"]):
                if not 0 <= score <= self.most:
                    raise UserError(
                        f"{rows.where(i)} has the score {score:g}, outside 0 … task.most={self.most:g}. Correct it, or raise "
                        "task.most."
                    )
        if len(set(corpus.train["score"])) == 1:
            raise UserError(
                f"all rows of train have the score {corpus.train['score'][0]:g}: there is nothing to learn."
            )
        return corpus

    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        return Head("score", 1)

    def encode(self, rows: Rows, head: Head, tokenise: Tokenise) -> EncodedSplit:
        score = np.array(rows["score"] if "score" in rows else [np.nan] * len(rows), dtype=np.float32)
        return EncodedSplit(tokenise(rows["text"]), {"score": score}, {"labels": np.isfinite(score).astype(np.int64)})

    def own_loss(self) -> ScoreLoss:
        return ScoreLoss()

    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        own = {"rmse": Meter(1, rmse_of, together), "pearson": Meter(5, pearson_of, together)}
        return Meters(own | ({"to_teacher": Meter(1, rmse_of, together)} if teacher else {}), sums)


def sums(answers: Tensors, truth: Tensors, teacher: Tensors | None) -> dict[str, Tensor]:
    """Score → its sums over the batch, as in judge.py."""
    own, score = answers["logits"][:, 0].double(), truth["score"].double()
    moments = torch.stack([own, score, own**2, score**2, own * score])
    added = {"rmse": (own - score).square().sum()[None], "pearson": moments.sum(1)}
    if teacher is not None:
        added["to_teacher"] = (own - teacher["logits"][:, 0].double()).square().sum()[None]
    return added
