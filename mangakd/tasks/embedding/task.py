"""Embeddings: a vector for each text, whose cosines say how much texts resemble each other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mangakd.core.errors import UserError, near
from mangakd.core.outputs import Batch
from mangakd.core.spec import Head, Kind
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows
from mangakd.data.source import Corpus
from mangakd.data.split import KEYS
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.served import Served
from mangakd.models.sentence_transformers import Settings
from mangakd.tasks.base import Answers, Model, Task
from mangakd.tasks.embedding.encode import ROLES, Prompts, encode, prompted, texts_of
from mangakd.tasks.embedding.judge import EmbeddingJudge
from mangakd.tasks.embedding.loss import LabelsLoss
from mangakd.tasks.embedding.mining import Mining, mine
from mangakd.tasks.embedding.served import served
from mangakd.tasks.meters import Meters, RowMeters

SIDES = ("student", "teacher")


@dataclass
class Embedding(Task):
    """A row is a text alone, or an anchor with a positive, with negatives, or with a second text and a score.

    most: the score of two texts that mean the same. dims: dimensions to which vectors are also cut, in scores and losses.
    prompts: student, teacher → query, document → what stands before each text; anchors are queries. hard_negatives: options of
    Mining.
    """

    units: ClassVar[tuple[str, ...]] = ("labels",)
    shows_untrained: ClassVar[bool] = True
    optional: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negatives", "score", "text")
    name: str = "embedding"
    kind: Kind = "vector"
    judge: Judge = field(default_factory=EmbeddingJudge)
    monitor: str = "spearman"
    most: float = 1.0
    dims: Sequence[int] | None = None
    prompts: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)
    hard_negatives: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.most, int | float) or not self.most > 0:
            raise UserError(
                f"task.most={self.most} must be a number above 0: the score of two texts that mean the same."
            )
        self.texts_before = _prompts(self.prompts)
        for name in self.hard_negatives:
            _check_name("task.hard_negatives", name, Mining.__match_args__)
        self._mining = Mining(**self.hard_negatives)

    @property
    def columns(self) -> Columns:
        return {"anchor": "text", "positive": "text", "negatives": "texts", "text": "text", "score": "number"}

    def prepare(self, corpus: Corpus) -> Corpus:
        """With each text alone as an anchor.

        Raises UserError for rows that name no text or two, negatives without a positive, scores outside [0, most] or on a part of
        the rows, and validation or test rows on which the monitor is not defined.
        """
        for rows in corpus.splits.values():
            self._check(rows)
        for name in ("validation", "test"):
            self._check_scored(name, corpus.splits[name])
        if self.mining and len(set(corpus.train["positive"]) - {""}) < 2:
            raise UserError(
                f"task.hard_negatives.count={self._mining.count} takes the positives of other rows, and train has fewer than two "
                f"({corpus.train.origin}). Set it to 0, or give pairs."
            )
        train, validation, test = map(_as_anchors, corpus.splits.values())
        unlabelled = _as_anchors(corpus.unlabelled)
        return replace(corpus, train=train, validation=validation, test=test, unlabelled=unlabelled)

    def _check(self, rows: Rows) -> None:
        scored = np.isfinite(np.array(rows["score"], dtype=float))
        for i, (text, anchor, positive, negatives, score) in enumerate(
            zip(*(rows[name] for name in ("text", "anchor", "positive", "negatives", "score")), strict=True)
        ):
            alone, pair = bool(text.strip()), bool(positive.strip())
            if alone == bool(anchor.strip()):
                what = "both an anchor and a text" if alone else "no anchor and no text"
                raise UserError(f"{rows.where(i)} has {what}. Give it one of them, or set data.columns.anchor.")
            if pair and alone:
                raise UserError(
                    f"{rows.where(i)} has a positive and no anchor. Correct it, or set data.columns.anchor."
                )
            if (negatives or scored[i]) and not pair:
                raise UserError(
                    f"{rows.where(i)} has no positive beside its negatives or score. Correct it, or set data.columns.positive."
                )
            if scored[i] and not 0 <= score <= self.most:
                raise UserError(
                    f"{rows.where(i)} has the score {score:g}, outside 0 … task.most={self.most:g}. Correct it, or set task.most."
                )
            if pair and scored[i] != scored.any():
                raise UserError(
                    f"{rows.where(i)} has a second text and no score, and {rows.where(int(scored.argmax()))} has a score. A "
                    "split has pairs with a score or pairs without: fill the scores, or leave the column out."
                )

    def _check_scored(self, name: str, rows: Rows) -> None:
        scored = np.isfinite(rows["score"]).any()
        by_score = "spearman" in self.monitor
        if by_score == scored and (scored or any(text.strip() for text in rows["positive"])):
            return
        has = "pairs with a score" if scored else "pairs without a score" if any(rows["positive"]) else "texts alone"
        cure = "task.monitor=spearman" if scored else "task.monitor=ndcg@10"
        given = (
            f"Set {cure}." if has != "texts alone" else f"Set {KEYS[name]} to a file of pairs, with a score or without."
        )
        raise UserError(
            f"{name} has {has} ({rows.origin}), and task.monitor={self.monitor} is not defined there. {given}"
        )

    def has_labels(self, rows: Rows) -> bool:
        return any(text.strip() for text in rows["positive"])

    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        """Each model's vectors are as wide as the model makes them."""
        return Head("vector", 0)

    def encode(self, rows: Rows, head: Head, tokenise: Tokenise) -> EncodedSplit:
        return encode(rows, self.most, self.texts_before, tokenise)

    def sequences(self, rows: Rows) -> Iterable[Sequence[tuple[str, ...]]]:
        return ([(text,) for text in prompted(texts, self.texts_before["teacher"])] for texts in texts_of(rows))

    def own_loss(self) -> LabelsLoss:
        return LabelsLoss(dims=self.dims)

    def ask(self, model: Model, batch: Batch, teacher: Model | None = None) -> dict[str, Tensor]:
        """anchor, positive: (B, D), zeros where a row has no second text."""
        vectors = model(batch).answer
        if "first" not in batch:
            return {"anchor": vectors, "positive": torch.zeros_like(vectors)}
        first = batch["first"]
        several = first.diff() > 1
        positive = vectors[(first[:-1] + 1).masked_fill(~several, 0)].masked_fill(~several[:, None], 0.0)
        return {"anchor": vectors[first[:-1]], "positive": positive}

    @property
    def mining(self) -> Mining | None:
        return self._mining if self._mining.count else None

    def mine(self, rows: Rows, train: EncodedSplit, answers: Answers) -> np.ndarray:
        return mine(self._mining, rows, train, answers)

    def mining_size(self, train: EncodedSplit) -> tuple[int, int]:
        if self.mining is None:
            return 0, 0
        paired = train.columns["labels"] == 1
        texts = np.unique(train.teacher.keys[np.repeat(paired, train.units["sequences"])])
        return len(texts), self._mining.count * int(paired.sum())

    def folder_settings(self, max_length: int) -> Settings:
        prompts = self.texts_before["student"]
        own = prompts if any(prompts.values()) else {}
        return Settings(own, max_length=max_length, dims=tuple(self.dims or ()))

    def served(self, rows: Rows) -> Served | None:
        return served(rows, self.most, self.texts_before["student"], self.judge)

    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        return RowMeters(partial(self.judge.values, head), together)


def _as_anchors(rows: Rows) -> Rows:
    anchors = [anchor if anchor.strip() else text for anchor, text in zip(rows["anchor"], rows["text"], strict=True)]
    return replace(rows, columns={**rows.columns, "anchor": anchors, "text": [""] * len(rows)})


def _prompts(given: Mapping[str, Mapping[str, str] | None]) -> Prompts:
    """With an empty prompt where none is given."""
    texts: dict[str, dict[str, str]] = {side: dict.fromkeys(ROLES, "") for side in SIDES}
    for side, entries in given.items():
        _check_name("task.prompts", side, SIDES)
        for role, text in (entries or {}).items():
            _check_name(f"task.prompts.{side}", role, ROLES)
            texts[side][role] = text or ""
    return texts


def _check_name(key: str, name: str, choices: Sequence[str]) -> None:
    if name not in choices:
        raise UserError(f"{key}.{name} is unknown{near(name, choices)} Known: {', '.join(choices)}.")
