"""Reliability: how often a model is right among the answers of which it is equally sure.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599).
"""

from dataclasses import dataclass

import numpy as np

from mangakd.evaluation.statistics import BINS, Answers, bin_of


@dataclass(frozen=True)
class Bins:
    """The bins that are not empty, each (bins). share: of answers. confidence: the mean. right: the share of right answers."""

    share: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, answers: Answers) -> "Bins":
        place = bin_of(answers.confidence).ravel()
        count, sure, hits = (
            np.bincount(place, weights, minlength=BINS)
            for weights in (None, answers.confidence.ravel(), answers.hits.ravel())
        )
        filled = count > 0
        count, sure, hits = count[filled], sure[filled], hits[filled]
        return cls(count / count.sum(), sure / count, hits / count)
