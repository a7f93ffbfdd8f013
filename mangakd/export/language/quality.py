"""How well a variant predicts the tokens of a split, beside the merged folder, which predicts the same tokens after the same
prefixes.

    perplexity        exp(Σ −log p / tokens)
    perplexity ratio  the variant's / the merged folder's, on the same tokens
    right tokens      share of target tokens that are the most probable token
    agreement         share of target tokens for which both models' most probable token is the same
    kl                KL(merged ‖ variant), nats a token, of the tokens that are among the K most probable ones of both, and of
    all others
                      as one: at most the KL of the whole distributions, and equal to it where K is the vocabulary

Intervals resample sequences, not tokens: the tokens of an answer are alike. All models share the resamples, so that ratios and
differences are paired. Log-probabilities are the engine's own (engine.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mangakd.data.chat_tokens import Marked
from mangakd.evaluation.bootstrap import RESAMPLES, Estimate, Statistic, bootstrap
from mangakd.export.language.engine import Engine, Scores

TOP = 256  # most probable tokens that are asked of an engine
_ROUNDING = 1e-6  # of a sum of probabilities: what whole vocabularies leave over


@dataclass(frozen=True)
class Predictions:
    """Of N sequences the scores of their target tokens alone."""

    rows: tuple[Scores, ...]

    @property
    def tokens(self) -> np.ndarray:
        """(N)"""
        return np.array([len(row.given) for row in self.rows], dtype=np.float64)


@dataclass(frozen=True)
class Quality:
    """Of a variant beside the merged folder. drop: of right tokens, in points. kl: nats a token."""

    perplexity: Estimate
    ratio: Estimate
    right: Estimate
    drop: Estimate
    agreement: Estimate
    kl: Estimate

    @property
    def finite(self) -> bool:
        return bool(np.isfinite([self.perplexity.value, self.kl.value]).all())


def predict(
    engine: Engine, sequences: Sequence[Marked], advance: Callable[[int], object] = lambda rows: None
) -> Predictions:
    """advance: called with the number of sequences that were done."""
    rows = []
    for each in sequences:
        start = each.targets.index(1, 1)
        scores = engine.score(each.ids, start, TOP)
        targets = np.array(each.targets[start:], dtype=bool)
        rows.append(Scores(scores.given[targets], scores.top[targets], scores.top_log_probs[targets]))
        advance(1)
    return Predictions(tuple(rows))


def compare(
    merged: Predictions, variants: Mapping[str, Predictions], sequences: Sequence[Marked], resamples: int = RESAMPLES
) -> dict[str, Quality]:
    """The quality of each variant. sequences: which all of them have predicted."""
    given = [[token for token, on in zip(row.ids, row.targets, strict=True) if on] for row in _behind_first(sequences)]
    tokens = merged.tokens
    statistics: dict[str, Statistic] = {}
    for name, own in {"": merged, **variants}.items():
        sums = {
            "nll": [-row.given.sum() for row in own.rows],
            "right": [(row.top[:, 0] == np.array(ids)).sum() for row, ids in zip(own.rows, given, strict=True)],
            "same": [(a.top[:, 0] == b.top[:, 0]).sum() for a, b in zip(merged.rows, own.rows, strict=True)],
            "kl": [divergences(a, b).sum() for a, b in zip(merged.rows, own.rows, strict=True)],
        }
        for measure, values in sums.items():
            formula, most = (_exp_mean, np.inf) if measure == "nll" else (_mean, np.inf if measure == "kl" else 1.0)
            features = np.stack([np.array(values, dtype=np.float64), tokens], axis=1)
            statistics[f"{measure} {name}"] = Statistic(features, formula, most, 1.0 if measure == "nll" else 0.0)
    own_estimates = bootstrap(statistics, resamples)
    return {name: _quality(own_estimates, name) for name in variants}


def divergences(merged: Scores, own: Scores) -> np.ndarray:
    """(P) KL(merged ‖ own), over the tokens among the most probable ones of both, and all others as one."""
    values = np.zeros(len(merged.given))
    for i in range(len(values)):
        _, ours, theirs = np.intersect1d(merged.top[i], own.top[i], assume_unique=True, return_indices=True)
        log_p = merged.top_log_probs[i, ours].astype(np.float64)
        log_q = own.top_log_probs[i, theirs].astype(np.float64)
        p, q = np.exp(log_p), np.exp(log_q)
        rest_p, rest_q = max(1 - p.sum(), 0.0), max(1 - q.sum(), 0.0)
        rest = rest_p * np.log(rest_p / max(rest_q, _ROUNDING)) if rest_p > _ROUNDING else 0.0
        values[i] = max(float((p * (log_p - log_q)).sum()) + rest, 0.0)
    return values


def _behind_first(sequences: Sequence[Marked]) -> list[Marked]:
    """Without the first token, which nothing predicts."""
    return [Marked(each.ids[1:], each.targets[1:]) for each in sequences]


def _quality(estimates: Mapping[str, Estimate], name: str) -> Quality:
    own, base = ({key: estimates[f"{key} {each}"] for key in ("nll", "right", "same", "kl")} for each in (name, ""))
    return Quality(
        own["nll"], own["nll"] / base["nll"], own["right"], (base["right"] - own["right"]) * 100, own["same"], own["kl"]
    )


def _mean(sums: np.ndarray) -> np.ndarray:
    """sums: (…, 2), of values and of tokens."""
    return sums[..., 0] / sums[..., 1]


def _exp_mean(sums: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity
        return np.exp(_mean(sums))
