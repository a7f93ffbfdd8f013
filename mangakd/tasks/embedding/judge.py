"""`EmbeddingJudge`: the scores of vectors on scored pairs and in retrieval, whole and cut to fewer dimensions."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from mangakd.core.errors import UserError, near
from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Details, Judge, Score
from mangakd.evaluation.predictions import Predictions
from mangakd.tasks.embedding import scores
from mangakd.tasks.embedding.details import CUT, PCA, EmbeddingDetails

RETRIEVAL = ("ndcg@10", "mrr@10", "recall@1", "recall@10")
PAIRS = "test on rows with a score"
POSITIVES = "test on rows with a positive"
SCORES = {
    "spearman": Score("Spearman", "{:.4f}", meaning="Spearman's correlation of cosine and score", missing=PAIRS),
    "ndcg@10": Score("NDCG@10", "{:.3f}", missing=POSITIVES),
    "mrr@10": Score("MRR@10", "{:.3f}", missing=POSITIVES),
    "recall@1": Score("recall@1", "{:.1%}", missing=POSITIVES),
    "recall@10": Score("recall@10", "{:.1%}", missing=POSITIVES),
    "likeness": Score("likeness", "{:.4f}", meaning="Spearman's correlation of the pairs' cosines with the teacher's"),
    "mean_cosine": Score(
        "mean cosine", "{:.3f}", "lower", "mean cosine of two different anchors (1: the vectors have collapsed)"
    ),
}


class EmbeddingJudge(Judge):
    """Answers hold `anchor` and `positive` (N, D), zeros where a row has none. Truth holds `score` (N), NaN where a row has none,
    `labels` (N), 1 where the row has a positive, and `anchor_key` and `positive_key` (N), equal for equal texts.

    main: the score of retention. dims: dimensions to which vectors are also cut (the first ones, then normalised).
    Formulas: scores.py.
    """

    def __init__(self, main: str = "spearman", dims: Sequence[int] | None = None) -> None:
        self.main, self.dims = main, tuple(dims or ())
        cut = {
            f"{name}{mark.format(size)}": Score(
                f"{score.title}, {size}", score.format, score.better, f"{score.meaning or score.title}, {words.format(size)}",
                missing=score.missing,
            )
            for name, score in SCORES.items() if name in CUT
            for size in self.dims
            for mark, words in (("_{}", "cut to {} dimensions"), (PCA, "PCA to {} dimensions"))
        }  # fmt: skip
        self.scores = SCORES | cut
        if main not in self.scores:
            raise UserError(f"task.monitor={main!r} is no score of embeddings{near(main, self.scores)}")
        family = (
            ("spearman",) if main.startswith("spearman") else RETRIEVAL
        )  # a split has pairs with a score, or without
        self.monitors = [name for name in self.scores if name.startswith(family) and "pca" not in name]
        self.watched = (main, "likeness", "mean_cosine")

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        own = Vectors(answers, truth)
        values = own.scores()
        for size in self.dims:
            cut = Vectors(answers, truth, size).scores()
            values |= {f"{name}_{size}": each for name, each in cut.items() if name in CUT}
        values["mean_cosine"] = scores.mean(
            scores.mean_cosine(own.anchors), np.ones(len(own.anchors), bool), least=-1.0
        )
        if teacher is not None and own.paired.any():
            values["likeness"] = scores.spearman(own.cosines, Vectors(teacher, truth).cosines, own.paired)
        return values

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """Of a model whose order of the candidates, or of the pairs, is random."""
        if self.main.startswith("spearman"):
            return {self.main: 0.0}
        candidates = len(np.unique(truth["positive_key"][truth["labels"] == 1]))
        gain, _, k = self.main.partition("_")[0].partition("@")
        ranks = scores.GAINS[gain](np.arange(1.0, min(int(k), candidates) + 1))
        return {self.main: float(ranks.sum() / candidates)}

    def details(self, test: Predictions, validation: Predictions | None = None) -> Details:
        return EmbeddingDetails(self.dims, test, validation, Vectors)


class Vectors:
    """One model's answers, of length 1, cut to `size` dimensions."""

    def __init__(self, answers: Arrays, truth: Arrays, size: int | None = None) -> None:
        self.anchors, self.positives = (scores.unit(answers[name], size) for name in ("anchor", "positive"))
        self.truth = truth
        self.scored, self.labelled = np.isfinite(truth["score"]), truth["labels"] == 1
        self.paired = self.scored | self.labelled

    @cached_property
    def cosines(self) -> np.ndarray:
        """(N) of each row's pair. Rounded, so that equal vectors are ties."""
        return np.round((self.anchors * self.positives).sum(1), 9)

    def scores(self) -> dict[str, Statistic]:
        return dict(self._scores())

    def _scores(self) -> Iterator[tuple[str, Statistic]]:
        if self.scored.any():
            yield "spearman", scores.spearman(self.cosines, self.truth["score"], self.scored)
        if self.labelled.any():
            better, tied = (np.zeros(len(self.anchors)) for _ in range(2))
            rows, keys = self.labelled, (self.truth["anchor_key"], self.truth["positive_key"])
            values = scores.places(self.anchors[rows], self.positives[rows], *(key[rows] for key in keys))
            better[rows], tied[rows] = values
            for name in RETRIEVAL:
                gain, _, k = name.partition("@")
                yield name, scores.mean(scores.expected(gain, int(k), better, tied), rows)
