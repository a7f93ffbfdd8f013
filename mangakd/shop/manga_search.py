"""The MangaAssist search corpus: questions of customers, and the pages of a catalogue of copies that may answer them.

A page describes one copy of a volume: binding, language, condition, stock, extras. A customer asks for a copy in other words
("second-hand", "auf Deutsch", "vol. twelve"), so that matching words finds the title and not the copy. The grade of a page is 2
if the copy is all that was asked, 1 if it is another copy of the title that misses one wish, else 0. So grades follow from the
attributes, and no person had to judge them.

Wordings and titles with a leading `~` occur in validation and test alone, as new titles do in a shop. A hash of the question
decides its split, so that splits share no question. Seeds are strings, so every process draws the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from random import Random
from zlib import crc32

from mangakd.shop.manga_corpus import utterance_key
from mangakd.shop.manga_noise import add_noise
from mangakd.shop.manga_titles import NEW_TITLES, TITLES

SIZES = {"train": 8_000, "validation": 500, "test": 1_000}
NOVELTY = {"train": 0.0, "validation": 0.25, "test": 0.25}  # of a wording; of a title the double
COPIES = 24  # of each title
CANDIDATES = 10  # pages of each question
_OWN, _TWINS = 5, 2  # of them: other copies of the title, and copies of other titles with equal attributes
_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip

# Attribute → value → (words of the page, words of customers).
WORDS: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "binding": {
        "paperback": (("Paperback.", "Softcover edition."), ("in paperback", "as a cheap softback", "~with a soft cover")),
        "hardcover": (("Hardcover.", "Cloth-bound hardback."), ("in hardcover", "as a hardback", "~with hard covers")),
        "omnibus": (("Omnibus, three volumes in one.", "3-in-1 edition."), ("as an omnibus", "as a 3-in-1", "~as one fat book")),
        "slipcase": (("Comes in a slipcase.", "Boxed edition."), ("with a box", "in a slipcase", "~boxed for a present")),
    },
    "language": {
        "English": (("English text.", "Translated into English."), ("in English", "to read in English", "~the UK edition")),
        "German": (("German text.", "Translated into German."), ("in German", "auf Deutsch", "~for my cousin in Berlin")),
        "French": (("French text.", "Translated into French."), ("in French", "en français", "~for my class in Paris")),
        "Japanese": (("Japanese text.", "Untranslated original."), ("in Japanese", "in the original", "~not translated")),
    },
    "condition": {
        "new": (("New.", "Sealed by the publisher."), ("new", "unopened", "~in mint condition")),
        "used": (("Used.", "Previously owned, light marks."), ("second-hand", "used", "~that somebody had before")),
    },
    "stock": {
        "here": (("In stock.", "Ships today."), ("that you can send right away", "ready to ship", "~I could have tomorrow")),
        "later": (("Pre-order.", "To be released next month."), ("that I can pre-order", "not out yet", "~to reserve early")),
    },
    "extra": {
        "poster": (("With a fold-out poster.", "A print for the wall is included."), ("with a poster", "with art for the wall")),
        "colour": (("Opens with colour pages.", "Eight pages in colour."), ("with colour pages", "partly in colour")),
        "signed": (("Signed by the artist.", "Carries the artist's autograph."), ("signed", "with an autograph")),
        "plain": (("No extras.", "Standard printing."), ("without extras", "just the normal print")),
    },
}  # fmt: skip
_SHARES = {"paperback": 3, "English": 3, "new": 2, "here": 3, "plain": 3}  # more frequent values; the others 1
OPENERS = (
    "do you have", "I am looking for", "is there", "can I get", "any chance of", "please find me", "I need", "got",
    "~my nephew wants", "~would you still carry",
)  # fmt: skip
_SHOP = (
    "Free returns for 30 days.",
    "Gift wrap on request.",
    "Sent from Leeds.",
    "Sent from our store in Lyon.",
    "One per customer.",
)


@dataclass(frozen=True)
class Copy:
    """A copy in the catalogue. attributes: name → value."""

    title: str
    volume: int
    attributes: Mapping[str, str]

    @cached_property
    def page(self) -> str:
        """The same text for equal copies."""
        rng = Random(f"page-{self.title}-{self.volume}-{sorted(self.attributes.items())}")
        lines = [rng.choice(WORDS[name][value][0]) for name, value in self.attributes.items()]
        lines += rng.sample(_SHOP, rng.randint(0, 2))
        rng.shuffle(lines)
        return " ".join([f"{self.title}, volume {self.volume}.", *lines])


@dataclass(frozen=True)
class Wish:
    """What a customer asks for. volume: None where any will do. attributes: those that were named."""

    title: str
    volume: int | None
    attributes: Mapping[str, str]

    def grade(self, copy: Copy) -> float:
        if copy.title != self.title:
            return 0.0
        misses = sum(copy.attributes[name] != value for name, value in self.attributes.items())
        misses += self.volume not in (None, copy.volume)
        return float(max(2 - misses, 0))


@cache
def catalogue() -> Mapping[str, tuple[Copy, ...]]:
    """Title → its copies, all different."""
    copies: dict[str, tuple[Copy, ...]] = {}
    for title in (*TITLES, *NEW_TITLES):
        rng = Random(f"catalogue-{title}")
        volumes = rng.sample(range(1, len(_NUMBERS) + 1), 4)
        pages: dict[str, Copy] = {}
        while len(pages) < COPIES:
            copy = Copy(title, rng.choice(volumes), {name: _value(name, rng) for name in WORDS})
            pages.setdefault(copy.page, copy)
        copies[title] = tuple(pages.values())
    return copies


def _value(attribute: str, rng: Random) -> str:
    values = [*WORDS[attribute]]
    return rng.choices(values, [_SHARES.get(value, 1) for value in values])[0]


def fewer(pages: Sequence[str], grades: Sequence[float], count: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The best page and the first others, `count` in all, in their order."""
    best = grades.index(max(grades))
    places = sorted([best, *(i for i in range(len(pages)) if i != best)][:count])
    return tuple(pages[i] for i in places), tuple(grades[i] for i in places)


def make_split(split: str, size: int | None = None) -> tuple[list[str], list[tuple[str, ...]], list[tuple[float, ...]]]:
    """(questions, the pages of each, their grades). A smaller split is a prefix of a larger split."""
    groups = [*islice(_stream(split), SIZES[split] if size is None else size)]
    questions, pages, grades = zip(*groups, strict=True) if groups else ((), (), ())
    return [*questions], [*pages], [*grades]


def _stream(split: str) -> Iterator[tuple[str, tuple[str, ...], tuple[float, ...]]]:
    """Questions of a split without end, each once."""
    rng, keys = Random(f"mangasearch-{split}"), set[str]()
    while True:
        copy, wish, question = ask(rng, NOVELTY[split])
        key = utterance_key(question)
        if key in keys or split_of(key) != split:
            continue
        keys.add(key)
        copies = _candidates(wish, copy, rng)
        yield question, tuple(each.page for each in copies), tuple(wish.grade(each) for each in copies)


def ask(rng: Random, novelty: float) -> tuple[Copy, Wish, str]:
    """A copy of the catalogue, a wish that it meets, and the customer's question for it."""
    new = rng.random() < 2 * novelty
    copy = rng.choice(catalogue()[rng.choice(NEW_TITLES if new else TITLES)])
    wish = _wish(copy, rng)
    return copy, wish, add_noise(_question(wish, rng, novelty), rng)


def split_of(key: str) -> str:
    bucket = crc32(key.encode()) % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")


def _wish(copy: Copy, rng: Random) -> Wish:
    names = sorted(rng.sample([*WORDS], rng.randint(1, 3)))
    volume = copy.volume if rng.random() < 0.7 else None
    return Wish(copy.title, volume, {name: copy.attributes[name] for name in names})


def _question(wish: Wish, rng: Random, novelty: float) -> str:
    words = [pick(WORDS[name][value][1], rng, novelty) for name, value in wish.attributes.items()]
    rng.shuffle(words)
    item = wish.title if wish.volume is None else pick(_volume(wish), rng, novelty)
    return f"{pick(OPENERS, rng, novelty)} {item} {_join(words)}{rng.choice(('?', '', ' please'))}"


def _volume(wish: Wish) -> tuple[str, ...]:
    number = wish.volume or 1
    word = _NUMBERS[number - 1]
    return (
        f"{wish.title} {number}", f"{wish.title} volume {word}", f"vol. {number} of {wish.title}", f"book {word} of {wish.title}",
        f"~{wish.title} no. {number}",
    )  # fmt: skip


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def pick(phrases: tuple[str, ...], rng: Random, novelty: float) -> str:
    """A phrase; with the probability `novelty` one that training texts lack, where there are such phrases."""
    held_out = [phrase[1:] for phrase in phrases if phrase.startswith("~")]
    if held_out and rng.random() < novelty:
        return rng.choice(held_out)
    return rng.choice([phrase for phrase in phrases if not phrase.startswith("~")])


def _candidates(wish: Wish, copy: Copy, rng: Random) -> list[Copy]:
    """The copy, its nearest misses, copies of other titles with equal attributes, and any others; in random order."""
    own = [each for each in catalogue()[wish.title] if each != copy]
    rng.shuffle(own)
    own.sort(key=wish.grade, reverse=True)
    fits = sum(wish.grade(each) == 2 for each in own)
    start = max(0, min(fits - 1, len(own) - _OWN))  # of many that fit, one beside the copy
    copies = {each.page: each for each in (copy, *own[start : start + _OWN])}
    others = [title for title in catalogue() if title != wish.title]
    while len(copies) < CANDIDATES:
        other = rng.choice(catalogue()[rng.choice(others)])
        if len(copies) <= _OWN + _TWINS:
            other = Copy(other.title, copy.volume, copy.attributes)
        copies.setdefault(other.page, other)
    candidates = [*copies.values()]
    rng.shuffle(candidates)
    return candidates
