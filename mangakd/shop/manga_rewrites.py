"""The MangaAssist conversations: turns that are understood only after what was said before, and rewrites that stand alone.

A customer asks about a subject, such as a volume or an order, and goes on with pronouns ("is it in stock?"), with parts of a
question ("in German?"), with another subject for the question before ("and order MA-20417?") or with a new question. The rewrite
is the question in full. Some turns search for something like the subject and have three rewrites. Each row also has the shop's
answer, so that a search with the rewrite among all answers can be scored. What the shop says of a subject is always the same.

A hash of the subject decides the split of all that is said about it, so that no rewrite of the test is among those of the
training. Short forms with a leading `~` and new titles occur in validation and test alone. There is no typing noise: the tiny T5
that learns from these turns in two minutes would spend them on it. Seeds are strings, so every process draws the same.
"""

from collections.abc import Iterator
from itertools import count, islice
from random import Random
from typing import NamedTuple

from mangakd.shop.manga_answers import Slots
from mangakd.shop.manga_corpus import Speaker, parse, utterance_key
from mangakd.shop.manga_search import pick, split_of
from mangakd.shop.manga_turns import SUBJECTS, Ask, Subject, facts

SIZES = {"train": 4_000, "validation": 200, "test": 800}
NOVELTY = {"train": 0.0, "validation": 0.1, "test": 0.1}
LONGEST = 3  # turns of a conversation
_TRIES = 200  # draws of another subject of a kind that has few
_SUBSTITUTES = ("and {it}?", "what about {it}?", "and for {it}?", "~how is it with {it}?")


class Turn(NamedTuple):
    """history: texts before this turn, the oldest first: a question, its answer, and so on. rewrites: the best first.

    subject: what is spoken of, such as `volume`. conversation: its number in the split.
    """

    conversation: int
    history: tuple[str, ...]
    utterance: str
    rewrites: tuple[str, ...]
    answer: str
    subject: str


class _Said(NamedTuple):
    """A question: its subject, its forms, and the values of the slots of both. phrase: how the customer puts it."""

    subject: Subject
    ask: Ask
    slots: Slots
    phrase: str


def make_split(split: str, size: int | None = None) -> list[Turn]:
    """A smaller split is a prefix of a larger split."""
    return [*islice(_stream(split), SIZES[split] if size is None else size)]


def _stream(split: str) -> Iterator[Turn]:
    """Turns of a split without end, conversation by conversation."""
    speaker = Speaker(Random(f"manga-rewrites-{split}"), NOVELTY[split])
    for number in count():
        yield from _conversation(speaker, split, number)


def _conversation(speaker: Speaker, split: str, number: int) -> Iterator[Turn]:
    rng, history = speaker.rng, list[str]()
    question = _new_question(speaker, split)
    for place in range(rng.randint(2, LONGEST)):
        question = _next_question(speaker, split, question) if place else question

        def write(phrase: str, slots: Slots = question.slots) -> str:
            return speaker.expand(parse(phrase), slots)

        utterance, answer = write(question.phrase), write(question.ask.answer)
        yield Turn(
            number,
            tuple(history),
            utterance,
            tuple(map(write, (question.ask.full, *question.ask.more))),
            answer,
            question.subject.name,
        )
        history += [utterance, answer]


def _new_question(speaker: Speaker, split: str) -> _Said:
    """In full, about any subject of the split."""
    while True:
        (subject,) = speaker.rng.choices(SUBJECTS, [each.weight for each in SUBJECTS])
        slots = _slots(speaker, subject)
        if _belongs(slots, split):
            ask = speaker.rng.choice(subject.asks)
            return _Said(subject, ask, slots | _details(speaker, ask), ask.full)


def _next_question(speaker: Speaker, split: str, last: _Said) -> _Said:
    """Of ten, seven ask something else about the subject, two the same about another subject, and one begins anew."""
    kind = speaker.rng.random()
    if kind < 0.7:
        ask = speaker.rng.choice([each for each in last.subject.asks if each is not last.ask])
        phrase = pick(ask.shorts, speaker.rng, speaker.novelty)
        return _Said(last.subject, ask, last.slots | _details(speaker, ask), phrase)
    for _ in range(_TRIES if kind < 0.9 else 0):
        slots = _slots(speaker, last.subject)
        if _belongs(slots, split) and slots["it"] != last.slots["it"]:
            return last._replace(slots=last.slots | slots, phrase=pick(_SUBSTITUTES, speaker.rng, speaker.novelty))
    return _new_question(speaker, split)


def _slots(speaker: Speaker, subject: Subject) -> Slots:
    slots = subject.slots(speaker)
    it = speaker.expand(parse(subject.it), slots)
    return {**slots, **facts(it), "it": it}


def _details(speaker: Speaker, ask: Ask) -> Slots:
    return {name: speaker.say(name) for name in ask.details}


def _belongs(slots: Slots, split: str) -> bool:
    return split_of(utterance_key(f"subject {slots['it']}")) == split
