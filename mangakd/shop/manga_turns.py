"""What customers of the MangaAssist shop ask in a conversation: the same question in short and in full, and the shop's answer.

Phrases are of manga_corpus's grammar, where a slot stands for its value. `{it}` is the subject of the conversation, in full. A
short form leaves the subject out or calls it by a pronoun, so that it means something only after what was said before. Short
forms with a leading `~` occur in validation and test alone.
"""

from collections.abc import Callable
from typing import NamedTuple

from mangakd.shop.manga_answers import Slots, fact
from mangakd.shop.manga_corpus import Speaker
from mangakd.shop.manga_titles import AUTHORS, SLOTS

_FEES = ("4.99", "6.49", "7.99", "8.99", "9.99", "11.99", "14.99", "19.99")
_PAGES = tuple(str(160 + 8 * step) for step in range(12))
_DAYS = ("two", "three", "four", "five", "six", "seven", "nine", "ten")


class Ask(NamedTuple):
    """shorts: forms for later turns. full: the rewrite, which stands alone. answer: what the shop says.

    details: slots that are drawn for each question. more: other wordings of a search, beside `full`.
    """

    shorts: tuple[str, ...]
    full: str
    answer: str
    details: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


class Subject(NamedTuple):
    """slots: what a subject is made of. it: the subject in full."""

    name: str
    weight: int
    slots: Callable[[Speaker], Slots]
    it: str
    asks: tuple[Ask, ...]


def _volume(speaker: Speaker) -> Slots:
    title = speaker.say("title")
    return {"title": title, "author": fact(AUTHORS, title), "number": str(1 + int(speaker.draw() * 20))}


def _order(speaker: Speaker) -> Slots:
    return {
        "number": "".join(speaker.rng.sample("0123456789", 3))
    }  # no digit twice: a tiny model copies by the token before


def _code(speaker: Speaker) -> Slots:
    code = speaker.say("code")
    return {"code": code, "month": fact(SLOTS["month"], code)}


def _drawn(name: str) -> Callable[[Speaker], Slots]:
    return lambda speaker: {name: speaker.say(name)}


def facts(it: str) -> Slots:
    """What the shop knows of a subject, always the same."""
    return {
        "fee": fact(_FEES, f"fee {it}"), "days": fact(_DAYS, f"days {it}"), "pages": fact(_PAGES, f"pages {it}"),
        "sent": fact(("on Monday", "on Tuesday", "last Friday", "yesterday", "this morning"), f"sent {it}"),
        "by": fact(("DHL", "UPS", "FedEx", "DPD", "Royal Mail"), f"by {it}"),
        "opens": fact(("nine", "half past nine", "ten", "eleven"), f"opens {it}"),
        "closes": fact(("six", "seven", "eight"), f"closes {it}"),
    }  # fmt: skip


VOLUME = Subject(
    "volume", 8, _volume, "{title} volume {number}",
    (
        Ask(("how much is it?", "what does it cost?", "how much?", "~and the price?"),
            "how much does {it} cost?", "{it} costs {fee} euros."),
        Ask(("is it in stock?", "do you have it?", "in stock?", "~have you got one?"),
            "is {it} in stock?", "we have {it} on the shelf, and it ships within {days} days."),
        Ask(("is it available in {language}?", "in {language}?", "and in {language}?", "~is there a {language} one?"),
            "is {it} available in {language}?", "we sell {it} with {language} text for {fee} euros.", ("language",)),
        Ask(("do you have the {edition} of it?", "do you have the {edition}?", "the {edition}?", "~and the {edition}?"),
            "do you have the {edition} of {it}?", "we sell the {edition} of {it} for {fee} euros more.", ("edition",)),
        Ask(("can you wrap it?", "can you wrap it as a gift?", "as a gift?", "~it is a present, can you wrap it?"),
            "can you wrap {it} as a gift?", "we put {it} into gift paper for {fee} euros."),
        Ask(("how many pages does it have?", "how many pages?", "how long is it?", "~is it a thick book?"),
            "how many pages does {it} have?", "{it} has {pages} pages."),
        Ask(("who wrote it?", "who is the author?", "who is it by?", "~whose work is it?"),
            "who wrote {it}?", "{it} is by {author}."),
        Ask(("can I send it back?", "can I return it?", "what if I do not like it?", "~do you take it back?"),
            "can I send back {it}?", "you can return {it} within {days} weeks."),
        Ask(("can you send it to {country}?", "to {country}?", "do you ship it to {country}?", "~does it go to {country}?"),
            "can you send {it} to {country}?", "we ship {it} to {country} in {days} days.", ("country",)),
        Ask(("is there anything like it?", "something similar?", "what is next?", "~more of that kind?"),
            "manga like {it}", "readers of {it} also buy other series, from {fee} euros.", (),
            ("series similar to {it}", "what to read after {it}")),
    ),
)  # fmt: skip
ORDER = Subject(
    "order", 4, _order, "order MA-{number}",
    (
        Ask(("where is it?", "has it been sent?", "is it on its way?", "~any news?"),
            "where is {it}?", "{it} left our store {sent}."),
        Ask(("who brings it?", "which carrier has it?", "who delivers it?", "~by which courier?"),
            "who delivers {it}?", "{it} travels with {by}."),
        Ask(("can I cancel it?", "can you cancel it?", "I want to cancel it", "~can I still stop it?"),
            "can I cancel {it}?", "you can withdraw from {it} within {days} days."),
        Ask(("can I pay it with {pay}?", "with {pay}?", "do you take {pay} for it?", "~is {pay} all right?"),
            "can I pay {it} with {pay}?", "{pay} is fine for {it}.", ("pay",)),
        Ask(("can I have the invoice?", "where is the invoice?", "I need the invoice", "~and a bill?"),
            "where is the invoice of {it}?", "the invoice of {it} was mailed {sent}."),
        Ask(("can you send it to {city}?", "to {city} please", "can it go to {city}?", "~I am in {city} now"),
            "can you send {it} to {city}?", "{it} now goes to {city}.", ("city",)),
    ),
)  # fmt: skip
SHOP = Subject(
    "shop", 1, _drawn("city"), "the shop in {city}",
    (
        Ask(("when does it open?", "when do you open?", "is it open now?", "~from when on?"),
            "when does {it} open?", "{it} opens at {opens}."),
        Ask(("when does it close?", "until when?", "how late can I come?", "~and in the evening?"),
            "when does {it} close?", "{it} closes at {closes}."),
        Ask(("can I park there?", "is there parking?", "where can I park?", "~and with a car?"),
            "can I park at {it}?", "there are {days} places for cars behind {it}."),
        Ask(("do they have {title}?", "is {title} there?", "and {title}?", "~would {title} be there?"),
            "does {it} have {title}?", "{title} is on the shelves of {it}.", ("title",)),
        Ask(("can I pay with {pay}?", "with {pay}?", "do they take {pay}?", "~is {pay} all right there?"),
            "can I pay with {pay} at {it}?", "{it} takes {pay}.", ("pay",)),
    ),
)  # fmt: skip
COUNTRY = Subject(
    "country", 1, _drawn("country"), "{country}",
    (
        Ask(("what does shipping there cost?", "how much is shipping?", "and the postage?", "~is it expensive?"),
            "what does shipping to {it} cost?", "shipping to {it} costs {fee} euros."),
        Ask(("how long does it take?", "how many days?", "is it quick?", "~when would it be there?"),
            "how long does delivery to {it} take?", "parcels to {it} need {days} days."),
        Ask(("who delivers there?", "which carrier?", "with whom?", "~by which courier?"),
            "who delivers to {it}?", "{by} brings our parcels to {it}."),
        Ask(("from when is it free?", "when is shipping free?", "is it ever free?", "~do I always pay?"),
            "when is shipping to {it} free?", "from {pages} euros on we pay the postage to {it}."),
    ),
)  # fmt: skip
CODE = Subject(
    "code", 3, _code, "{code}",
    (
        Ask(("is it still valid?", "does it still work?", "until when?", "~has it ended?"),
            "is {it} still valid?", "{it} runs until {month}."),
        Ask(("how much do I save?", "what is it worth?", "how much is it?", "~what do I get?"),
            "how much do I save with {it}?", "{it} takes {fee} euros off."),
        Ask(("can I use it for {title}?", "for {title}?", "does it work for {title}?", "~and on {title}?"),
            "can I use {it} for {title}?", "{it} is good for {title}.", ("title",)),
        Ask(("can I use it twice?", "does it work twice?", "only once?", "~and a second time?"),
            "can I use {it} twice?", "each customer may redeem {it} for {days} orders."),
    ),
)  # fmt: skip
SUBJECTS = (VOLUME, ORDER, SHOP, COUNTRY, CODE)
