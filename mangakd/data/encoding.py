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
# nearly any bytes are valid in them. Scripts other than Latin need two letters in a row, which accented Latin rarely has.
_HAN = r"[\u3001-\u301f\u4e00-\u9fff\uff01-\uff5e]{2,}"
_KANA = r"[\u3001-\u30ff\u4e00-\u9fff\uff01-\uff9f]{2,}"  # with kanji and half-width kana
_CYRILLIC = r"[\u0401\u0410-\u044f\u0451]{2,}"
_LATIN = r"[\u00a1-\u017e\u2013-\u2026\u20ac]"
_CANDIDATES = (
    ("cp932", _KANA),  # Shift-JIS
    ("euc-jp", _KANA),
    ("cp949", r"[\uac00-\ud7a3]{2,}"),  # Korean
    ("gb18030", _HAN),
    ("big5", _HAN),
    ("cp1251", _CYRILLIC),
    ("koi8-r", _CYRILLIC),
    ("cp1253", r"[\u0386-\u03ce]{2,}"),  # Greek
    ("cp1256", r"[\u060c-\u06d2]{2,}"),  # Arabic
    ("cp874", r"[\u0e01-\u0e2e\u0e40-\u0e44][\u0e01-\u0e4e]+"),  # Thai
    ("cp1252", _LATIN),  # Western Europe
    ("cp1250", _LATIN),  # Central Europe
    ("macintosh", r"[\u00c0-\u017e\u2013-\u2026]"),
    ("cp850", r"[\u00c0-\u017e]"),  # MS-DOS
    ("cp1254", _LATIN),  # Turkish
    ("iso-8859-2", _LATIN),
    ("cp437", r"[\u00c0-\u017e]"),
)
_WIDE = (("utf-16le", "."), ("utf-16be", "."))  # without a byte order mark
_SHOWN = 6
# Encodings whose bytes are all ASCII: a sign of them, and the letters that it must decode to.
_SEVEN_BIT = (
    ("iso-2022-kr", rb"\x1b\$\)C", r"[\u3001-\u318e\uac00-\ud7a3\u4e00-\u9fff]"),
    ("iso-2022-jp", rb"\x1b(?:\$[@B]|\([BJ])", "."),
    ("iso-2022-jp-3", rb"\x1b(?:\$|\(I)", "."),
    ("hz", rb"~\{[!-~]+~\}", r"[\u3001-\u9fff\uff01-\uff5e]"),
    # A telephone number such as +49301234-5 is valid UTF-7, too: four Han letters, or one that is rare by chance.
    (
        "utf-7",
        rb"\+[A-Za-z0-9+/]{3,}",
        r"[\u4e00-\u9fff]*[\u00a1-\u05ff\u2010-\u2026\u3001-\u30ff\uff01-\uff5e]+|[\u4e00-\u9fff\uac00-\ud7a3]{4,}",
    ),
)
# glibc's iconv does not know it
_FROM_HZ = """python -c 'import sys; sys.stdout.buffer.write(sys.stdin.buffer.read().decode("hz").encode())' <"""


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
    if content.isascii() and (names := list(_seven_bit(content))):
        raise UserError(
            f"{key}={file} is not UTF-8: its bytes are all ASCII, but they stand for other letters."
            + _choice(file, names)
        )
    return text


def _seven_bit(content: bytes) -> Iterator[tuple[str, str]]:
    """(encoding, sample) of the first encoding that stands for other letters by ASCII."""
    for name, sign, letters in _SEVEN_BIT:
        if not (match := re.search(sign, content)):
            continue
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        if _plausible(text, letters):
            line = content.rfind(b"\n", 0, match.start()) + 1
            yield name, _sample(text) if not text.isascii() else content[line:].decode(name).splitlines()[0][:40]
            return


def _unknown(file: Path, key: str, content: bytes, start: int) -> str:
    line = content.count(b"\n", 0, start) + 1
    head = f"{key}={file} is not UTF-8, and its encoding is unknown: line {line} holds the byte 0x{content[start]:02x}."
    samples = list(_samples(content))
    if not samples:
        return f"{head} Save it as UTF-8, or convert it: iconv -f <its encoding> -t utf-8."
    return head + _choice(file, samples)


def _choice(file: Path, samples: list[tuple[str, str]]) -> str:
    """How the first letters read in each encoding, and the command to convert from the one that the user chooses."""
    sample_lines = "".join(f"\n  {name}: {sample!r}" for name, sample in samples)
    name = samples[0][0] if len(samples) == 1 else "ENCODING"
    command = _FROM_HZ if name == "hz" else f"iconv -f {name} -t utf-8 <"
    advice = f"{command} {shlex.quote(file.name)} > {shlex.quote('utf8-' + file.name)}"
    if len(samples) == 1:
        return f" The first such letters read{sample_lines}\nIf that reads right, convert it: {advice}"
    return f" The first such letters read{sample_lines}\nOnly you can tell which reads right (or none). Convert from it: {advice}"


def _samples(content: bytes) -> Iterator[tuple[str, str]]:
    """(encoding, the text around the first character that is not ASCII) of the plausible encodings, equal texts once."""
    texts: set[str] = set()
    for name, letters in _WIDE if b"\0" in content else _CANDIDATES:
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        sample = _sample(text)
        if sample not in texts and len(texts) < _SHOWN and _plausible(text, letters):
            texts.add(sample)
            yield name, sample


def _sample(text: str) -> str:
    """The text around the first character that is not ASCII."""
    place = next((match.start() for match in re.finditer(r"[^\x00-\x7f]", text)), 0)
    return re.split(r"[\r\n]", text[max(place - 20, 0) : place])[-1] + text[place : place + 20].splitlines()[0]


def _plausible(text: str, letters: str) -> bool:
    """Whether more than two thirds of what is not ASCII are such letters, and nothing is a control character."""
    foreign = re.sub(r"[\x00-\x7f]", "", text)
    if any(unicodedata.category(character) in ("Cc", "Co", "Cn") for character in set(foreign)):
        return False
    return 3 * sum(map(len, re.findall(letters, text))) > 2 * len(foreign)
