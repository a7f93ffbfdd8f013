"""Scores of texts that were written for a row, against the row's targets: functions of strings. NaN where one has no meaning.

    exact_match   1 where the first text equals a target but for case, blanks and a full stop (tasks/texts.py)
    token_f1      F1 of the words of the first text and of a target, as bags: 2 · common / (words + words of the target)
    rouge_l       F1 of their longest common subsequence
    added_terms   share of the words that a target has and the utterance lacks which a text has, too

Of several targets the best counts, for `added_terms` the words of all together. Of several texts, which are expansions, the first
counts, for `added_terms` the words of all together. Token-F1 barely tells a rewrite from a copy, as both share most words: read
it beside the score of the copy.

Source: token-F1: Rajpurkar et al. 2016 (arXiv:1606.05250), without their list of English articles.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from mangakd.tasks.texts import exact_match, rouge_l, words


def scored(texts: Sequence[str], targets: Sequence[str], utterance: str) -> dict[str, float]:
    """texts: what one system writes for the row, the best first; none counts as a blank text."""
    first = texts[0] if texts else ""
    return {
        "exact_match": max(exact_match(first, target) for target in targets),
        "token_f1": _best(token_f1(first, target) for target in targets),
        "rouge_l": _best(rouge_l(first, target) for target in targets),
        "added_terms": added_terms(texts, targets, utterance),
    }


def token_f1(text: str, target: str) -> float:
    """NaN where the target holds no word."""
    own, other = Counter(words(text)), Counter(words(target))
    return 2 * (own & other).total() / (own.total() + other.total()) if other else math.nan


def added_terms(texts: Sequence[str], targets: Sequence[str], utterance: str) -> float:
    """NaN where the targets add no word to the utterance."""
    added = _words(targets) - _words([utterance])
    return len(added & _words(texts)) / len(added) if added else math.nan


def _words(texts: Sequence[str]) -> set[str]:
    return {word for text in texts for word in words(text)}


def _best(values: Iterable[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)
