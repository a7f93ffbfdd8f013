"""A judge whose one score is better when it is lower: the mean negative log-likelihood of the true class."""

import numpy as np

from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Judge, Score
from mangakd.evaluation.statistics import log_softmax, mean

SCORES = {"nll": Score("NLL", "{:.3f}", "lower", "negative log-likelihood", "nats")}


class LowerJudge(Judge):
    scores = SCORES
    main, monitors, watched = "nll", ("nll",), ("nll",)

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        logits, labels = answers["logits"].astype(np.float64), truth["labels"]
        return {"nll": mean(-log_softmax(logits)[np.arange(len(labels)), labels])}

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        share = np.bincount(truth["labels"]) / len(truth["labels"])
        return {"nll": float(-(share[share > 0] * np.log(share[share > 0])).sum())}
