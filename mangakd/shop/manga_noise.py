"""Typing noise: abbreviations, typos, careless case and punctuation.

The noise is drawn after the text and independently of the intent, so it never makes the task easier.
"""

from __future__ import annotations

import re
from random import Random

ABBREVIATIONS: dict[str, str] = {
    "you": "u", "please": "pls", "are": "r", "thanks": "thx", "because": "cuz", "your": "ur", "volume": "vol",
    "what": "wat", "tomorrow": "tmrw", "volumes": "vols", "about": "abt", "know": "kno", "before": "b4",
    "something": "smth", "though": "tho", "with": "w/", "and": "&", "delivery": "dlvry", "people": "ppl",
    "tell": "tel", "have": "hv",
}  # fmt: skip

# The keys beside each key of a QWERTY keyboard, for typos.
NEIGHBOURS: dict[str, str] = {
    "a": "sqz", "b": "vn", "c": "xv", "d": "sfe", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "w", "r": "et", "s": "ad", "t": "ry", "u": "yi",
    "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip

_SENTENCE = re.compile(r"(^|[.?!] )([a-z])")


def add_noise(text: str, rng: Random) -> str:
    """Add the noise of a customer who types in a hurry."""
    draw = rng.random
    if draw() < 0.18:
        text = " ".join([ABBREVIATIONS.get(word, word) if draw() < 0.7 else word for word in text.split(" ")])
    if draw() < 0.30:
        text = _typo(text, rng)
        if draw() < 0.35:
            text = _typo(text, rng)
    style = draw()
    if style < 0.40:
        text = text.lower()
    elif style < 0.85:
        text = _SENTENCE.sub(lambda match: match[1] + match[2].upper(), text)
    punctuation = draw()
    if punctuation < 0.30:
        text = text.rstrip(".?")
    elif punctuation < 0.45:
        text = text.replace(",", "").replace("?", "").replace(". ", " ").replace(";", "")
    elif punctuation < 0.55:
        text += "?" if text.endswith("?") else "!"
    return text.strip()  # a typo may have moved a space to the end


def _typo(text: str, rng: Random) -> str:
    """Make one typo: drop a letter, double it, swap it with the next letter, or replace it by a neighbour on the keyboard."""
    at = int(rng.random() * (len(text) - 1))
    letter = text[at]
    beside = NEIGHBOURS.get(letter)
    if beside is None:
        return text
    slip = rng.random()
    if slip < 0.3:
        new = ""
    elif slip < 0.55:
        new = letter * 2
    elif slip < 0.75:
        return text[:at] + text[at + 1] + letter + text[at + 2 :]
    else:
        new = beside[int(rng.random() * len(beside))]
    return text[:at] + new + text[at + 1 :]
