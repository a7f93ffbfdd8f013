"""`RerankJudge`: the scores of a ranker (metrics.py), and what the report adds to them."""

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Details, Judge, Score
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.measure import statistics_of
from mangakd.tasks.rerank import metrics
from mangakd.tasks.rerank.details import RerankDetails
from mangakd.tasks.rerank.metrics import Ranking

SCORES = {
    "ndcg_exp@3": Score("NDCG@3", "{:.3f}", meaning="NDCG@3, exponential gain"),
    "ndcg_exp@10": Score("NDCG@10", "{:.3f}", meaning="NDCG@10, exponential gain"),
    "ndcg_lin@10": Score("linear NDCG@10", "{:.3f}", meaning="NDCG@10, linear gain"),
    "mrr@10": Score("MRR@10", "{:.3f}"),
    "recall@3": Score("recall@3", "{:.3f}"),
    "recall@10": Score("recall@10", "{:.3f}"),
    "judged@10": Score("judged@10", "{:.3f}", meaning="share of the first 10 documents that are judged"),
    "agreement": Score("same first", "{:.1%}", meaning="same first document as the teacher"),
    "tau": Score("tau", "{:.3f}", meaning="Kendall's tau to the teacher"),
    "kl": Score("KL", "{:.3f}", "lower", "KL(teacher ‖ student)", "nats"),
}
BESIDE = ("agreement", "tau", "kl")  # scores that compare with a teacher


class RerankJudge(Judge):
    """Answers hold `logits` (N, G), -inf in padding. Truth holds `grades` and `judged` (N, G), NaN in padding.

    relevant: the least grade of a relevant document, for MRR and recall; None: the best grade of each query.
    """

    scores = SCORES
    main = "ndcg_exp@3"
    monitors = ("ndcg_exp@3", "ndcg_exp@10", "ndcg_lin@10", "mrr@10")
    watched = ("ndcg_exp@3", "mrr@10", "agreement", "kl")

    def __init__(self, relevant: float | None = None) -> None:
        if relevant is not None and (
            isinstance(relevant, bool) or not isinstance(relevant, int | float) or relevant <= 0
        ):
            raise UserError(
                f"task.judge.relevant={relevant} must be a grade above 0, or null for the best grade of each query."
            )
        self.relevant = relevant

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        own = answers["logits"]
        ranking = Ranking.of(own, truth["grades"])
        scores = {
            "ndcg_exp@3": metrics.ndcg(ranking, 3, exponential=True),
            "ndcg_exp@10": metrics.ndcg(ranking, 10, exponential=True),
            "ndcg_lin@10": metrics.ndcg(ranking, 10, exponential=False),
            "mrr@10": metrics.mrr(ranking, 10, self.relevant),
            "recall@3": metrics.recall(ranking, 3, self.relevant),
            "recall@10": metrics.recall(ranking, 10, self.relevant),
            "judged@10": metrics.judged(own, _judged(truth), 10),
        }
        if teacher is None:
            return scores
        other = teacher["logits"]
        return scores | {
            "agreement": metrics.agreement(own, other), "tau": metrics.tau(own, other), "kl": metrics.kl(own, other),
        }  # fmt: skip

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """What a model gets that gives all documents one score."""
        return {self.main: metrics.ndcg(Ranking.of(alike(truth["grades"]), truth["grades"]), 3, exponential=True).value}

    def details(self, test: Predictions, validation: Predictions | None = None) -> Details:
        return RerankDetails(test, statistics_of(self, test), self.scores)


def _judged(truth: Arrays) -> np.ndarray:
    """A run of an earlier version kept the grades alone, one for each document."""
    return truth["judged"] if "judged" in truth else np.where(np.isnan(truth["grades"]), np.nan, 1.0)


def alike(grades: np.ndarray) -> np.ndarray:
    """The answers of a model that scores all documents alike."""
    return np.where(np.isnan(grades), -np.inf, 0.0)
