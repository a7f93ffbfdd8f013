"""The MangaAssist answers: what customers ask the shop, what the shop knows about it, and what its assistant answers.

A fact that changes from customer to customer, such as the state of an order, stands in a passage beside the question, so that
the answer can be told from the prompt. Facts of the shop, such as the postage to a country, are in the answers alone and must be
learnt. Answers have several wordings, openers and closers: a teacher knows which of them are possible, while an example shows a
single one. Questions have typing noise, answers have none.

Wordings with a leading `~` and new titles occur in validation and test alone. A hash of the question decides its split, so that
splits share no question. Seeds are strings, so every process draws the same.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import NamedTuple
from zlib import crc32

from mangakd.shop.manga_corpus import Speaker, parse, utterance_key
from mangakd.shop.manga_noise import add_noise
from mangakd.shop.manga_search import WORDS, ask, catalogue, pick, split_of
from mangakd.shop.manga_titles import TITLES

SIZES = {"train": 2_000, "validation": 150, "test": 300}
NOVELTY = {"train": 0.0, "validation": 0.1, "test": 0.1}
SYSTEM = "You are MangaAssist, the assistant of a manga shop. Answer in one or two short sentences."
Slots = dict[str, str]


class Answer(NamedTuple):
    """context: passages that the answer is told from; empty for facts of the shop."""

    prompt: str
    context: tuple[str, ...]
    answer: str


class Topic(NamedTuple):
    """slots: draws what the phrases speak of. Phrases are of manga_corpus's grammar, where a slot stands for its value."""

    weight: int
    slots: Callable[[Speaker], Slots]
    questions: tuple[str, ...]
    context: tuple[str, ...]
    answers: tuple[str, ...]


def _drawn(*names: str) -> Callable[[Speaker], Slots]:
    return lambda speaker: {name: speaker.say(name) for name in names}


def fact(values: tuple[str, ...], key: str) -> str:
    """The value that the shop has for a key, always the same."""
    return values[crc32(key.encode()) % len(values)]


def _shipping(speaker: Speaker) -> Slots:
    country = speaker.say("country")
    days = fact(("two", "three", "four", "five", "seven"), country)
    return {"country": country, "days": days, "fee": fact(("3.90", "4.90", "6.90", "8.90", "12.90"), f"fee {country}")}


def _hours(speaker: Speaker) -> Slots:
    city = speaker.say("city")
    return {
        "city": city,
        "opens": fact(("nine", "half past nine", "ten"), city),
        "closes": fact(("six", "seven", "eight"), f"{city}!"),
    }


def _next_read(speaker: Speaker) -> Slots:
    title = speaker.say("title")
    other = TITLES[(crc32(title.encode()) + 7) % len(TITLES)]
    return {"title": title, "other": other, "fee": fact(("7.99", "8.99", "9.99", "11.99", "14.99"), other)}


def _code(speaker: Speaker) -> Slots:
    code = speaker.say("code")
    return {
        "code": code,
        "off": "".join(filter(str.isdigit, code)),
        "month": speaker.say("month"),
        "item": speaker.say("item"),
    }


def _payment(speaker: Speaker) -> Slots:
    pay = speaker.say("pay")
    return {"pay": pay, "when": fact(("at once", "when we ship", "within two days"), pay)}


TOPICS: tuple[Topic, ...] = (
    Topic(
        4, _drawn("orderid", "carrier", "weekday", "date"),
        ("where is {orderid}?", "has {orderid} been sent [yet|]?", "when will {orderid} [arrive|be here]?",
         "~any news of {orderid}?"),
        ("{orderid}: handed to {carrier} on {weekday}, due {date}.",),
        (
            "We gave {orderid} to {carrier} on {weekday}, and it should arrive by {date}.",
            "{orderid} left our store on {weekday}. {carrier} will bring it by {date}.",
            "Good news: {orderid} is on its way with {carrier} and is due {date}.",
        ),
    ),
    Topic(
        2, _drawn("orderid", "title", "weekday"),
        ("where is {orderid}?", "why is {orderid} [late|not here]?", "has {orderid} been sent [yet|]?",
         "~any news of {orderid}?"),
        ("{orderid}: waits for {title}, to be packed on {weekday}.",),
        (
            "I am sorry, {orderid} still waits for {title}. We pack it on {weekday}.",
            "{orderid} is not sent yet, because {title} is missing. It will be packed on {weekday}.",
        ),
    ),
    Topic(
        3, _shipping,
        ("what does shipping to {country} cost?", "how long is delivery to {country}?", "do you ship to {country}?",
         "~postage to {country}?"),
        (),
        (
            "Shipping to {country} costs {fee} euros and takes {days} days.",
            "We ship to {country} within {days} days, for {fee} euros.",
            "Yes, we ship to {country}: {fee} euros, {days} days.",
        ),
    ),
    Topic(
        3, _drawn("item", "flaw"),
        ("{item} is {flaw}, what now?", "can I send back {item}? it is {flaw}", "I got {item} and it is {flaw}",
         "~my {item} came {flaw}"),
        (),
        (
            "I am sorry that {item} is {flaw}. Send it back within 30 days, and we refund you and pay the postage.",
            "That should not happen. Please send {item} back within 30 days for a refund or a new copy.",
            "Sorry about that! We replace {item} free of charge if it is {flaw}.",
        ),
    ),
    Topic(
        3, _next_read,
        ("what should I read after {title}?", "I loved {title}, what is next?", "something like {title} please",
         "~more books like {title}?"),
        (),
        (
            "If you liked {title}, try {other}. The first volume costs {fee} euros.",
            "After {title} I would read {other}, from {fee} euros.",
            "Fans of {title} often buy {other} for {fee} euros.",
        ),
    ),
    Topic(
        2, _code,
        ("is {code} still valid?", "can I use {code} for {item}?", "how much do I save with {code}?",
         "~does {code} work on {item}?"),
        ("{code}: runs until the end of {month}.",),
        (
            "Yes, {code} takes {off} percent off until the end of {month}.",
            "With {code} you save {off} percent. It is valid until the end of {month}.",
        ),
    ),
    Topic(
        2, _hours,
        ("when does the shop in {city} open?", "is the shop in {city} open now?", "opening hours in {city}?",
         "~how late can I come in {city}?"),
        (),
        (
            "Our shop in {city} is open from {opens} to {closes}, Monday to Saturday.",
            "In {city} we open at {opens} and close at {closes}. We are closed on Sundays.",
        ),
    ),
    Topic(
        2, _payment,
        ("can I pay with {pay}?", "do you take {pay}?", "when is {pay} charged?", "~is {pay} all right?"),
        (),
        ("Yes, you can pay with {pay}. We charge it {when}.", "We take {pay}, and the money is charged {when}."),
    ),
    Topic(
        1, _drawn("title"),
        ("hi, how are you?", "do you like {title}?", "thank you!", "[hello|hey] there", "~you are quick"),
        (),
        ("Happy to help! Is there anything else?", "Thank you for asking. What can I do for you?",
         "I never tire of {title}. What can I do for you?"),
    ),
)  # fmt: skip
_COPIES = 5  # weight of questions about a copy in the catalogue, beside TOPICS
_YES = ("Yes, we have {copy}.", "We do: {copy} is here.", "You are in luck, {copy} is in our catalogue.")
_NO = ("Sorry, we have {copy}, but not {missing}.", "Not quite: {copy} is here, though not {missing}.")
_OPENERS = (
    "", "", "", "Sure. ", "Of course. ", "Happy to help. ", "Good question. ", "Let me see. ", "Thanks for asking. ", "Hello! ",
)  # fmt: skip
_CLOSERS = (
    "", "", "", " Anything else?", " Have a nice day!", " Just write again if not.", " Is that all right?", " See you soon!",
    " Happy reading!", " Your MangaAssist",
)  # fmt: skip


def make_split(split: str, size: int | None = None) -> list[Answer]:
    """A smaller split is a prefix of a larger split."""
    return [*islice(_stream(split), SIZES[split] if size is None else size)]


def _stream(split: str) -> Iterator[Answer]:
    """Answers of a split without end, each question once."""
    rng, novelty, keys = Random(f"manga-answers-{split}"), NOVELTY[split], set[str]()
    speaker = Speaker(rng, novelty)
    share = _COPIES / (_COPIES + sum(topic.weight for topic in TOPICS))
    while True:
        answer = _about_copy(rng, novelty) if rng.random() < share else _about_topic(speaker)
        key, question = (utterance_key(text) for text in (" ".join((answer.prompt, *answer.context)), answer.prompt))
        if key not in keys and split_of(question) == split:
            keys.add(key)
            yield answer


def _about_topic(speaker: Speaker) -> Answer:
    rng = speaker.rng
    (topic,) = rng.choices(TOPICS, [topic.weight for topic in TOPICS])
    slots = topic.slots(speaker)

    def write(phrase: str) -> str:
        return speaker.expand(parse(phrase), slots)

    question = add_noise(write(pick(topic.questions, rng, speaker.novelty)), rng)
    return Answer(question, tuple(map(write, topic.context)), _polite(write(rng.choice(topic.answers)), rng))


def _about_copy(rng: Random, novelty: float) -> Answer:
    """A question for a copy, and a page of the catalogue that fits it or misses one wish."""
    copy, wish, question = ask(rng, novelty)
    near = [other for other in catalogue()[wish.title] if wish.grade(other) == 1]
    page = rng.choice(near) if near and rng.random() < 0.5 else copy
    missing = [WORDS[name][value][1][0] for name, value in wish.attributes.items() if page.attributes[name] != value]
    if wish.volume not in (None, page.volume):
        missing.append(f"volume {wish.volume}")
    answer = rng.choice(_NO if missing else _YES).format(
        copy=f"{page.title}, volume {page.volume}", missing=", ".join(missing)
    )
    return Answer(question, (page.page,), _polite(answer, rng))


def _polite(answer: str, rng: Random) -> str:
    return rng.choice(_OPENERS) + answer + rng.choice(_CLOSERS)
