"""A judge whose one score is better when it is lower: the mean negative log-likelihood of the true class."""

import numpy as np

from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Judge, Score
from mangakd.evaluation.statistics import log_softmax, mean

SCORES = {"nll": Score("NLL", "{:.3f}", "lower", "negative log-likelihood", "nats")}


class LowerJudge(Judge):
    scores = SCORES
    main, monitors, watched = "nll", ("nll",), ("nll",)

    def statistics(
        self, answers: np.ndarray, truth: np.ndarray, teacher: np.ndarray | None = None
    ) -> dict[str, Statistic]:
        return {"nll": mean(-log_softmax(answers.astype(np.float64))[np.arange(len(truth)), truth])}

    def chance(self, truth: np.ndarray) -> dict[str, float]:
        share = np.bincount(truth) / len(truth)
        return {"nll": float(-(share[share > 0] * np.log(share[share > 0])).sum())}
