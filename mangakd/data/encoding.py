"""Bytes of a text file to text: UTF-8, or UTF-16 and UTF-32. Any other encoding is refused, because it cannot be known.

`json.detect_encoding` reads the byte order mark, or without one the zero bytes that ASCII leaves in UTF-16 and UTF-32.
"""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from mangakd.core.errors import UserError

# Encodings that people's files have, with the letters that must be most of what is not ASCII. Without such letters
# nearly any bytes are valid in them.
_CANDIDATES = (
    ("cp932", r"[\u3041-\u30ff\u4e00-\u9fff]*[\u3041-\u3096\u30a1-\u30ff]"),  # Japanese: Shift-JIS
    ("euc-jp", r"[\u3041-\u30ff\u4e00-\u9fff]*[\u3041-\u3096\u30a1-\u30ff]"),
    ("cp949", r"[\uac00-\ud7a3]"),  # Korean
    ("gb18030", r"[\u4e00-\u9fff]"),  # Chinese
    ("big5", r"[\u4e00-\u9fff]"),
    ("cp1251", r"[\u0410-\u044f]*[\u0430-\u044f]{2}"),  # Cyrillic, mostly small letters, not one alone among Latin ones
    ("cp1252", r"[\u00a0-\u00ff\u0152\u0153\u0160\u0161\u017d\u017e\u2013-\u2026\u20ac]"),  # Western Europe
    ("cp1250", r"[\u00a0-\u017e\u2013-\u2026\u20ac]"),  # Central Europe
)
_WIDE = (("utf-16le", "."), ("utf-16be", "."))  # without a byte order mark
_SHOWN = 3


def read_text(file: Path, key: str) -> str:
    """The file's text without a byte order mark, its line ends as they are. Raises UserError for another encoding."""
    content = file.read_bytes()
    try:
        text = content.decode(json.detect_encoding(content[:4])).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(_unknown(file, key, content, error.start)) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{key}={file}: line {line} holds a zero byte: the file is no text, or its encoding is unknown. "
            "Save it as UTF-8, or as UTF-16 with a byte order mark."
        )
    return text


def _unknown(file: Path, key: str, content: bytes, start: int) -> str:
    line = content.count(b"\n", 0, start) + 1
    head = f"{key}={file} is not UTF-8, and its encoding is unknown: line {line} holds the byte 0x{content[start]:02x}."
    samples = list(_samples(content))
    if not samples:
        return f"{head} Save it as UTF-8, or convert it: iconv -f <its encoding> -t utf-8."
    shown = "; ".join(f"in {name} {sample!r}" for name, sample in samples)
    name = shlex.quote(file.name)
    advice = f"iconv -f {samples[0][0]} -t utf-8 {name} > {shlex.quote('utf8-' + file.name)}"
    return f"{head} The first letters that are not ASCII read {shown}. Convert it from the right one, for example: {advice}"


def _samples(content: bytes) -> Iterator[tuple[str, str]]:
    """(encoding, the text around the first character that is not ASCII) of the plausible encodings, equal texts once."""
    texts: set[str] = set()
    for name, letters in _WIDE if b"\0" in content else _CANDIDATES:
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        place = next((match.start() for match in re.finditer(r"[^\x00-\x7f]", text)), 0)
        shown = re.split(r"[\r\n]", text[max(place - 20, 0) : place])[-1] + text[place : place + 20].splitlines()[0]
        if shown not in texts and len(texts) < _SHOWN and _plausible(text, letters):
            texts.add(shown)
            yield name, shown


def _plausible(text: str, letters: str) -> bool:
    """Whether more than two thirds of what is not ASCII are such letters, and nothing is a control character."""
    foreign = re.sub(r"[\x00-\x7f]", "", text)
    if any(unicodedata.category(character) in ("Cc", "Co", "Cn") for character in set(foreign)):
        return False
    return 3 * sum(map(len, re.findall(letters, text))) > 2 * len(foreign)
