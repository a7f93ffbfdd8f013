"""A probability for each of K choices, from the log-probabilities of the tokens that a model might have written.

A token belongs to the choice that it begins, where it begins one alone: ` ref` belongs to `refund`. Where a token begins several
choices and is the token that the model wrote, the next token's alternatives share its probability. All other probability is
missing: of other words, of alternatives that the provider did not list, and of tokens that begin several choices.

Asking an API for a letter and reading the alternatives of the first token is the usual way to get a classifier's probabilities
out of a language model (Hendrycks et al. 2021, arXiv:2009.03300, as evaluated there).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Step = Mapping[str, float]
"""Alternatives of one token: its text → log-probability in nats."""
_BEFORE = " \t\r\n\"'`*▁Ġ"  # blanks, quotes, and marks of a blank that some servers do not decode


@dataclass(frozen=True)
class Distribution:
    """probabilities: of the choices in their order, with the sum 1. missing: what they had not before they were divided by it."""

    probabilities: tuple[float, ...]
    missing: float


def distribution(choices: Sequence[str], steps: Sequence[Step], text: str) -> Distribution | None:
    """p(c) = m(c) / Σ m, missing = 1 − Σ m, where m(c) is the probability that the answer begins with the choice c.

    steps: as in `Answer.logprobs`. text: the answer, which says which of the alternatives was written. A single step whose tokens
    are the choices themselves holds their whole probabilities. None where no probability belongs to a choice.
    """
    if len(steps) == 1 and steps[0].keys() == {*choices}:
        masses = [math.exp(steps[0][choice]) for choice in choices]
    else:
        masses = [0.0] * len(choices)
        for place, mass in _masses(choices, steps, text.lstrip(_BEFORE), "", 0.0):
            masses[place] += mass
    total = math.fsum(masses)
    if not total > 0:
        return None
    return Distribution(tuple(mass / total for mass in masses), max(0.0, 1.0 - total))


def _masses(
    choices: Sequence[str], steps: Sequence[Step], text: str, before: str, logprob: float
) -> Iterator[tuple[int, float]]:
    """(place of a choice, probability) of the tokens that decide for one. before: what was written before these steps."""
    if not steps:
        return
    token_of_text = _token_of(steps[0], text, before)
    for token, own in steps[0].items():
        begun = before + token if before else token.lstrip(_BEFORE)
        places = _places(choices, begun)
        if len(places) == 1:
            yield places[0], math.exp(logprob + own)
        elif places and token == token_of_text:
            yield from _masses(choices, steps[1:], text, begun, logprob + own)


def _places(choices: Sequence[str], begun: str) -> list[int]:
    """The choices that an answer may still become, or has become."""
    whole = [
        (len(choice), i)
        for i, choice in enumerate(choices)
        if begun.startswith(choice) and not begun[len(choice) : len(choice) + 1].isalnum() and len(begun) > len(choice)
    ]
    if whole:
        return [max(whole)[1]]
    return [i for i, choice in enumerate(choices) if choice.startswith(begun)]


def _token_of(step: Step, text: str, before: str) -> str | None:
    """The token that the answer goes on with: the longest that fits, and of blanks alone the likeliest."""
    fitting = [token for token in step if text.startswith(before + token if before else token.lstrip(_BEFORE))]
    return max(fitting, key=lambda token: (len(token.strip(_BEFORE)), step[token]), default=None)
