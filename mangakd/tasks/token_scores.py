"""The scores of predicted tokens, each a ratio of sums over target tokens. Imports no torch: reports need none.

    nll          nats a target token
    perplexity   exp(nll)
    accuracy     share of target tokens that are the model's most probable token
    ece          Σ over bins |Σ (confidence − hit)| / tokens, where the confidence is that of the most probable token
    kl           KL(teacher ‖ student), nats a token
    bucket_kl    the same of a stored teacher's K best tokens and all others as one bucket: at most the KL
    agreement    share of tokens for which the most probable token of both models is the same

Intervals resample rows, not tokens: the tokens of an answer are alike. A resample's score is the ratio of its own sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np

from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Score

EXACT = (
    "train with teacher=local or teacher.stored_as=states: other stores do not hold the teacher's whole distribution"
)
SCORES = {
    "perplexity": Score("perplexity", "{:.2f}", "lower"),
    "nll": Score("nll", "{:.3f}", "lower", "nll of a target token", "nats"),
    "accuracy": Score("right tokens", "{:.1%}", meaning="most probable token is the target"),
    "ece": Score("ECE", "{:.3f}", "lower", "ECE of the next token"),
    "agreement": Score("agreement", "{:.1%}", meaning="same most probable token as the teacher"),
    "kl": Score("KL", "{:.3f}", "lower", "KL(teacher ‖ student) a token", "nats", EXACT),
    "bucket_kl": Score(
        "KL ≥",
        "{:.3f}",
        "lower",
        "KL(teacher ‖ student) a token, at least: of the stored tokens and all others as one",
        "nats",
        "only teacher.stored_as=topk at T = 1 gives it",
    ),
}


def ratio(sums: np.ndarray) -> np.ndarray:
    """sums: (…, 2), of tokens' values and of tokens."""
    return sums[..., 0] / sums[..., 1]


def exp_ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity
        return np.exp(ratio(sums))


def gap(sums: np.ndarray) -> np.ndarray:
    """sums: (…, BINS + 1), of confidence − hit by bins, and of tokens."""
    return np.abs(sums[..., :-1]).sum(-1) / sums[..., -1]


@dataclass(frozen=True)
class Measure:
    """of: the answers' entry (tasks/token_sums.py). formula: sums (…, F + 1), the last of tokens → the score."""

    of: str
    formula: Callable[[np.ndarray], np.ndarray] = ratio
    most: float = inf
    least: float = 0.0


MEASURES = {
    "perplexity": Measure("nll", exp_ratio, least=1.0),
    "nll": Measure("nll"),
    "accuracy": Measure("right", most=1.0),
    "ece": Measure("gaps", gap, most=1.0),
    "agreement": Measure("agreement", most=1.0),
    "kl": Measure("kl"),
    "bucket_kl": Measure("bucket_kl"),
}


def statistics(answers: Arrays, truth: Arrays) -> dict[str, Statistic]:
    """Of the sums that the answers hold (tasks/token_sums.py). truth: holds `tokens` (N)."""
    tokens = truth["tokens"][:, None]
    return {
        name: Statistic(features(answers[each.of], tokens), each.formula, each.most, each.least)
        for name, each in MEASURES.items()
        if each.of in answers
    }


def features(values: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(N, F + 1). values: (N) or (N, F). tokens: (N, 1)."""
    return np.concatenate([values.reshape(len(tokens), -1), tokens], 1).astype(np.float64)
