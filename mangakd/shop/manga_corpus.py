"""The MangaAssist intent corpus: utterances to the chatbot of a manga shop, made by a seeded grammar.

The corpus replaces data that cannot be shipped, so it must be a fair test of distillation. A bag of words must lose to
an encoder (contrasts of two topics, side remarks). No model may reach 100 % (wordings that two intents share). The test
split must hold phrases and titles that the training texts lack.

The grammar: ``{name}`` calls a rule, ``{low-high}`` draws a number, ``[this|that]`` picks an option. A phrase with a
leading ``~`` is held out: it is drawn with the split's novelty, which is zero for train and unlabelled texts.

Splits cannot leak into each other: a hash of the utterance's letters and digits decides its split, so each split is
generated independently. Train and unlabelled share their hash buckets. A few short utterances occur in both, as they
would in the logs of a shop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import NamedTuple
from zlib import crc32

from mangakd.shop.manga_frames import (
    ACTION_FRAMES,
    ACTIONS,
    ASK_FRAMES,
    ASKS,
    CLOSERS,
    JOINERS,
    OPENERS,
    REMARK_FRAMES,
    REMARKS,
)
from mangakd.shop.manga_noise import add_noise
from mangakd.shop.manga_phrases import REQUESTS, SHARED
from mangakd.shop.manga_titles import SLOTS

INTENTS: tuple[str, ...] = (
    "product_question",
    "product_discovery",
    "recommendation",
    "order_tracking",
    "shipping",
    "return_request",
    "promotion",
    "faq",
    "chitchat",
    "escalation",
)
SIZES = {"train": 25_000, "validation": 3_000, "test": 3_000, "unlabelled": 200_000}

# Frequency of each intent outside the shared wordings, in the order of INTENTS.
PRIORS = (0.18, 0.12, 0.14, 0.17, 0.11, 0.042, 0.10, 0.09, 0.06, 0.025)
SHARED_RATE = 0.14  # utterances whose wording belongs to two intents
CONTRAST_RATE = 0.15  # of the other utterances: two topics in one sentence, and a request for one of them
REMARK_RATE = 0.35  # of the remaining utterances: a remark on another topic beside the request
NOVELTY = {"train": 0.0, "validation": 0.07, "test": 0.07, "unlabelled": 0.0}

_BUCKETS = 100
_TEST_BELOW, _VALIDATION_BELOW = 8, 16  # hash buckets of test, then of validation; the rest trains
_MAX_MISSES = 20_000  # so many rejected draws in a row mean that the grammar is exhausted
_TOKEN = re.compile(r"\{(\d+)-(\d+)\}|\{(\w+(?::\w+)?)\}|\[([^\]]*)\]")
_NOT_KEY = re.compile(r"[\W_]+")


class _Range(NamedTuple):
    low: int
    high: int


class _Call(NamedTuple):
    rule: str


class _Choice(NamedTuple):
    options: tuple[_Phrase, ...]


_Phrase = tuple[str | _Range | _Call | _Choice, ...]


class _Rule(NamedTuple):
    training: tuple[_Phrase, ...]
    held_out: tuple[_Phrase, ...]


def parse(text: str) -> _Phrase:
    """A phrase of the grammar."""
    parts: list[str | _Range | _Call | _Choice] = []
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        end = match.end()
        low, high, rule, options = match.groups()
        if low is not None:
            parts.append(_Range(int(low), int(high)))
        elif rule is not None:
            parts.append(_Call(rule))
        else:
            parts.append(_Choice(tuple(parse(option) for option in options.split("|"))))
    if end < len(text):
        parts.append(text[end:])
    return tuple(parts)


def _rule(phrases: tuple[str, ...]) -> _Rule:
    training = tuple(parse(phrase) for phrase in phrases if not phrase.startswith("~"))
    return _Rule(training, tuple(parse(phrase[1:]) for phrase in phrases if phrase.startswith("~")))


def _rules() -> dict[str, _Rule]:
    rules = {name: _rule(values) for name, values in SLOTS.items()}
    for kind, table in (("request", REQUESTS), ("ask", ASKS), ("act", ACTIONS), ("remark", REMARKS)):
        rules.update({f"{kind}:{intent}": _rule(phrases) for intent, phrases in table.items()})
    rules.update({f"shared:{number}": _rule(shared[4]) for number, shared in enumerate(SHARED)})
    rules.update(ask_frame=_rule(ASK_FRAMES), action_frame=_rule(ACTION_FRAMES), remark_frame=_rule(REMARK_FRAMES))
    rules.update(joiner=_rule(JOINERS), opener=_rule(OPENERS), closer=_rule(CLOSERS))
    return rules


_RULES = _rules()
_PRIOR_STEPS = tuple(accumulate(PRIORS))
_SHARED_STEPS = tuple(accumulate(shared[3] for shared in SHARED))


def bayes_ceiling() -> float:
    """The accuracy of a reader who knows the grammar: the reader errs on shared wordings only."""
    loss = sum(weight * min(first, 1.0 - first) for _, _, first, weight, _ in SHARED) / _SHARED_STEPS[-1]
    return 1.0 - SHARED_RATE * loss


class Speaker:
    """Draws clean utterances. ``novelty``: probability of a held-out phrase, for rules that have held-out phrases."""

    def __init__(self, rng: Random, novelty: float) -> None:
        self.rng = rng
        self.draw = rng.random
        self.novelty = novelty

    def utterance(self) -> tuple[str, str]:
        draw = self.draw
        if draw() < SHARED_RATE:
            text, intent = self._shared_wording()
        else:
            intent = self._intent()
            text = self._contrast(intent) if draw() < CONTRAST_RATE else self._request(intent)
        text = text.replace("  ", " ").replace(" ?", "?").rstrip()  # empty options leave such spaces
        if draw() < 0.35:
            text = self.say("opener") + text
        if draw() < 0.25:
            text += ("" if text.endswith("?") else ",") + self.say("closer")
        return text, intent

    def say(self, rule: str, slots: dict[str, str] | None = None) -> str:
        value = slots.get(rule) if slots else None
        if value is not None:
            return value
        training, held_out = _RULES[rule]
        phrases = held_out if held_out and self.novelty and self.draw() < self.novelty else training
        return self.expand(phrases[int(self.draw() * len(phrases))], slots)

    def expand(self, phrase: _Phrase, slots: dict[str, str] | None) -> str:
        words: list[str] = []
        for part in phrase:
            if isinstance(part, str):
                words.append(part)
            elif isinstance(part, _Call):
                words.append(self.say(part.rule, slots))
            elif isinstance(part, _Range):
                words.append(str(part.low + int(self.draw() * (part.high - part.low + 1))))
            else:
                words.append(self.expand(part.options[int(self.draw() * len(part.options))], slots))
        return "".join(words)

    def _intent(self, unlike: tuple[str, ...] = ()) -> str:
        while True:
            intent = INTENTS[_pick(_PRIOR_STEPS, self.draw())]
            if intent not in unlike:
                return intent

    def _shared_wording(self) -> tuple[str, str]:
        number = _pick(_SHARED_STEPS, self.draw())
        first, second, probability, _, _ = SHARED[number]
        intent = first if self.draw() < probability else second
        text = self.say(f"shared:{number}")
        # The remark must not be about either intent, or it would hint at the label of a coin toss.
        return (self._beside(text, (first, second)) if self.draw() < 0.2 else text), intent

    def _request(self, intent: str) -> str:
        text = self.say(f"request:{intent}")
        return self._beside(text, (intent,)) if self.draw() < REMARK_RATE else text

    def _contrast(self, intent: str) -> str:
        other = self._intent(unlike=(intent,))
        kind = "ask" if self.draw() < 0.5 else "act"
        topics = {"want": self.say(f"{kind}:{intent}"), "other": self.say(f"{kind}:{other}")}
        return self.say("ask_frame" if kind == "ask" else "action_frame", topics)

    def _beside(self, text: str, unlike: tuple[str, ...]) -> str:
        """Add a remark on another topic to the request, mostly in front."""
        topic = self._intent(unlike)
        if self.draw() < 0.4:
            remark = self.say(f"remark:{topic}")
        else:
            remark = self.say("remark_frame", {"ask": self.say(f"ask:{topic}"), "act": self.say(f"act:{topic}")})
        if self.draw() < 0.7:
            return remark + self.say("joiner") + text
        return text + (" " if text.endswith("?") else ". ") + remark


def _pick(steps: tuple[float, ...], draw: float) -> int:
    target = draw * steps[-1]
    return next(number for number, step in enumerate(steps) if target < step)


def utterance_key(text: str) -> str:
    """The letters and digits of an utterance. Two utterances with one key count as equal."""
    return _NOT_KEY.sub("", text.lower())


def _belongs(key: str, split: str) -> bool:
    bucket = crc32(key.encode()) % _BUCKETS
    if bucket < _TEST_BELOW:
        return split == "test"
    if bucket < _VALIDATION_BELOW:
        return split == "validation"
    return split in ("train", "unlabelled")


def _stream(split: str) -> Iterator[tuple[str, str]]:
    """Yield distinct utterances of a split without end. A string seed gives the same draws in every process."""
    rng = Random(f"mangaassist-{split}")
    speaker = Speaker(rng, NOVELTY[split])
    keys: set[str] = set()
    misses = 0
    while misses < _MAX_MISSES:
        clean, intent = speaker.utterance()
        text = add_noise(clean, rng)
        key = utterance_key(text)
        if key in keys or not _belongs(key, split):
            misses += 1
            continue
        misses = 0
        keys.add(key)
        yield text, intent
    raise RuntimeError(f"the grammar holds no more than {len(keys)} utterances for {split!r}")


def make_split(split: str, size: int | None = None) -> tuple[list[str], list[str]]:
    """The texts of a split and their intents (none for ``unlabelled``). A smaller split is a prefix of a larger split."""
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}, expected one of {', '.join(SIZES)}")
    count = SIZES[split] if size is None else size
    if count < 0:
        raise ValueError(f"size must not be negative, got {count}")
    texts: list[str] = []
    intents: list[str] = []
    for _, (text, intent) in zip(range(count), _stream(split), strict=False):
        texts.append(text)
        intents.append(intent)
    return texts, ([] if split == "unlabelled" else intents)
