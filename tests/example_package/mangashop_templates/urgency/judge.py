"""The scores of a model that answers with a number, each as sums over rows. Imports no torch: reports are made without it."""

from functools import partial

import numpy as np

from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Judge, Score

SCORES = {
    "rmse": Score("RMSE", "{:.3f}", "lower", "root mean squared error"),
    "pearson": Score("Pearson's r", "{:.3f}"),
    "to_teacher": Score("RMSE to the teacher", "{:.3f}", "lower"),
}


class UrgencyJudge(Judge):
    """Answers hold `logits` (N, 1). Truth holds `score` (N). pearson is not defined where all scores or all answers are equal."""

    scores = SCORES
    main, monitors, watched = "rmse", ("rmse", "pearson"), ("rmse", "to_teacher")

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        own, score = (values.astype(np.float64) for values in (answers["logits"][:, 0], truth["score"]))
        pearson = Statistic(moments(_centred(own), _centred(score)), partial(pearson_of, rows=len(own)), least=-1.0)
        scores = {"rmse": _rmse(own - score), "pearson": pearson}
        return scores if teacher is None else scores | {"to_teacher": _rmse(own - teacher["logits"][:, 0])}

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """The error of a model that always answers the mean."""
        return {"rmse": float(truth["score"].std(dtype=np.float64))}


def _rmse(error: np.ndarray) -> Statistic:
    return Statistic((error**2)[:, None], partial(rmse_of, rows=len(error)), most=np.inf)


def _centred(values: np.ndarray) -> np.ndarray:
    """r does not change, and its sums keep their digits in fp32."""
    return values - values.mean()


def rmse_of(sums: np.ndarray, rows: int) -> np.ndarray:
    """sums: (…, 1) of squared errors."""
    return np.sqrt(sums[..., 0] / rows)


def moments(own: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(N, 5): what Pearson's r needs the sums of."""
    return np.stack([own, score, own**2, score**2, own * score], axis=-1)


def pearson_of(sums: np.ndarray, rows: int) -> np.ndarray:
    """sums: (…, 5) of `moments`."""
    x, y, xx, yy, xy = np.moveaxis(sums / rows, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))
