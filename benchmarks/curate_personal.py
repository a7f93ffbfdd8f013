"""Personal data of US and Japanese forms planted in sentences, and numbers of a shop that are none: made here, by a seed.

The values are computed without mangakd: check digits by their definitions. A sentence of Japanese has no blanks around a value.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

Maker = Callable[[random.Random], str]


class Planted(NamedTuple):
    """value: a part of text that must not stay, "" where nothing is planted. group: a row of the table."""

    group: str
    text: str
    value: str = ""


ENGLISH = ("Please reach me: {}.", "My {what} is {} if you need it.", "{what}: {}", "Thanks! {what} {} (home)")
JAPANESE = (
    "{what}は{}です。",
    "{what}：{}",
    "お世話になります。{what}{}までお願いします。",
    "{what}（{}）を登録しました。",
)
WIDE = str.maketrans("0123456789-@.", "０１２３４５６７８９－＠．")


def digits(draw: random.Random, count: int, first: str = "0123456789") -> str:
    return draw.choice(first) + "".join(draw.choice("0123456789") for _ in range(count - 1))


def us_number(draw: random.Random) -> tuple[str, str, str]:
    return draw.choice(("212", "415", "312", "206", "617", "702")), digits(draw, 3, "23456789"), digits(draw, 4)


def us_phone(draw: random.Random) -> str:
    a, b, c = us_number(draw)
    while b[1:] == "11":  # such as 911, which no exchange is
        a, b, c = us_number(draw)
    return draw.choice(
        (f"({a}) {b}-{c}", f"{a}-{b}-{c}", f"{a}.{b}.{c}", f"+1 {a} {b} {c}", f"+1-{a}-{b}-{c}", f"{a}{b}{c}")
    )


def jp_phone(draw: random.Random) -> str:
    mobile = (draw.choice(("070", "080", "090")), digits(draw, 4, "123456789"), digits(draw, 4))
    fixed = (draw.choice(("03", "06")), digits(draw, 4, "345"), digits(draw, 4))
    city = (draw.choice(("045", "052", "092")), digits(draw, 3, "234567"), digits(draw, 4))
    parts = draw.choice((mobile, fixed, city))
    national = f"+81 {parts[0][1:]} {parts[1]} {parts[2]}"
    forms = (
        "-".join(parts),
        f"({parts[0]}){parts[1]}-{parts[2]}",
        national,
        "-".join(parts).translate(WIDE),
        "ー".join(parts),
    )
    return draw.choice((*forms, "".join(mobile)))


def email(draw: random.Random) -> str:
    user = draw.choice(("taro.yamada", "j_smith", "hanako+manga", "info-2024", "x9", "o'neil"))
    host = draw.choice(
        ("example.com", "mail.example.co.jp", "docomo.ne.jp", "my-shop.org", "xn--wgv71a.jp", "uni.ac.uk")
    )
    return draw.choice((f"{user}@{host}", f"{user}@{host}".upper(), f"{user}@{host}".translate(WIDE)))


def card(draw: random.Random) -> str:
    start, size, groups = draw.choice(
        [
            ("4", 16, (4, 4, 4, 4)),
            ("53", 16, (4, 4, 4, 4)),
            ("2345", 16, (4, 4, 4, 4)),
            ("37", 15, (4, 6, 5)),
            ("3540", 16, (4, 4, 4, 4)),
        ]
    )
    number = start + digits(draw, size - len(start) - 1)
    total = sum(sum(divmod(int(each) * (2 - i % 2), 10)) for i, each in enumerate(reversed(number)))
    number += str(-total % 10)
    cuts = [sum(groups[:i]) for i in range(len(groups) + 1)]
    parts = [number[a:b] for a, b in pairwise(cuts)]
    return draw.choice(("", " ", "-")).join(parts)


def my_number(draw: random.Random) -> str:
    first = digits(draw, 11)
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)  # of the digits from the left
    rest = sum(int(each) * weight for each, weight in zip(first, weights, strict=True)) % 11
    number = first + str(0 if rest <= 1 else 11 - rest)
    return draw.choice(("", " ", "-")).join((number[:4], number[4:8], number[8:]))


def ssn(draw: random.Random) -> str:
    area = draw.choice([n for n in range(100, 900) if n != 666])
    parts = f"{area}", f"{draw.randint(1, 99):02}", f"{draw.randint(1, 9999):04}"
    return draw.choice(("-", " ", "")).join(parts)


def iban(draw: random.Random) -> str:
    country, bank = draw.choice((("DE", digits(draw, 18)), ("GB", "NWBK" + digits(draw, 14)), ("FR", digits(draw, 23))))
    if country == "FR":
        key = 97 - 89 * int(bank[:5]) % 97 - 15 * int(bank[5:10]) % 97 - 3 * int(bank[10:21]) % 97
        bank = f"{bank[:21]}{key % 97:02}"
    whole = "".join(str(int(each, 36)) for each in f"{bank}{country}00")
    number = f"{country}{98 - int(whole) % 97:02}{bank}"
    return draw.choice((number, " ".join(number[i : i + 4] for i in range(0, len(number), 4))))


def address(draw: random.Random) -> str:
    v4 = ".".join(str(draw.randint(1, 254)) for _ in range(4))
    v6 = ":".join(f"{draw.randint(4096, 65535):x}" for _ in range(8))
    return draw.choice((v4, v6))


PERSONAL: Mapping[str, tuple[Maker, str, str]] = {
    "US phone": (us_phone, "phone number", "電話番号"),
    "Japanese phone": (jp_phone, "phone number", "電話番号"),
    "e-mail": (email, "e-mail", "メール"),
    "card": (card, "card number", "カード番号"),
    "My Number": (my_number, "My Number", "マイナンバー"),
    "US SSN": (ssn, "social security number", "SSN"),
    "IBAN": (iban, "IBAN", "口座"),
    "IP": (address, "IP address", "IPアドレス"),
}


def planted(count: int, seed: int = 0) -> list[Planted]:
    """`count` sentences of each kind, half of them Japanese."""
    cases = []
    for group, (make, english, japanese) in PERSONAL.items():
        draw = random.Random(f"{seed} {group}")
        for i in range(count):
            frames, what = (ENGLISH[1:], english) if i % 2 else (JAPANESE, japanese)
            value = make(draw)
            cases.append(Planted(group, draw.choice(frames).replace("{what}", what).replace("{}", value), value))
    return cases


def unlabelled(count: int, seed: int = 0) -> list[Planted]:
    """Phone numbers with separators, e-mail addresses and cards, without a word that says what they are."""
    cases = []
    for group in ("US phone", "Japanese phone", "e-mail", "card"):
        draw = random.Random(f"{seed} bare {group}")
        for i in range(count):
            value = PERSONAL[group][0](draw)
            text = f"It is {value}, thank you." if i % 2 else f"{value}です。よろしくお願いします。"
            cases.append(Planted(f"{group}, no word", text, value))
    return cases


INNOCENT: Mapping[str, tuple[Maker, tuple[str, ...]]] = {
    "order number, 3-7-7": (
        lambda draw: f"{digits(draw, 3, '12')}-{digits(draw, 7)}-{digits(draw, 7)}",
        ("Order {} has shipped.", "注文番号{}は発送済みです。", "{} is on its way.", "{}が届きません。"),
    ),
    "order number, 10 digits": (
        lambda draw: digits(draw, 10, "23456789"),
        ("Your order number is {}.", "ご注文番号：{}", "Order #{} was cancelled.", "注文{}をキャンセルしました。"),
    ),
    "10 digits, no word": (lambda draw: digits(draw, 10, "23456789"), ("{} is on its way.", "{}が届きません。")),
    "tracking number, 4-4-4": (
        lambda draw: "-".join(digits(draw, 4) for _ in range(3)),
        ("The tracking number is {}.", "伝票番号は{}です。", "お問い合わせ送り状番号{}", "Parcel {}: delivered."),
    ),
    "4-4-4 digits, no word": (
        lambda draw: "-".join(digits(draw, 4) for _ in range(3)),
        ("{} arrived.", "{}が届きました。"),
    ),
    "ISBN and JAN": (
        lambda draw: draw.choice(
            (f"978-4-08-{digits(draw, 6)}-{digits(draw, 1)}", "49" + digits(draw, 11), "4" + digits(draw, 9))
        ),
        ("ISBN {}", "The barcode says {}.", "JAN {}の商品です。", "商品コード{}"),
    ),
    "price": (
        lambda draw: f"{draw.randint(1, 999)},{digits(draw, 3)},{digits(draw, 3)}",
        ("It costs ¥{}.", "価格は{}円です。", "The set is ${}.00 today.", "合計￥{}（税込）"),
    ),
    "date and time": (
        lambda draw: (
            f"2024-{draw.randint(1, 12):02}-{draw.randint(1, 28):02} {draw.randint(0, 23):02}:{draw.randint(0, 59):02}:00"
        ),
        ("It arrives at {}.", "{}に発送しました。"),
    ),
    "postcode and address": (
        lambda draw: draw.choice((f"{digits(draw, 3)}-{digits(draw, 4)}", f"{digits(draw, 5)}-{digits(draw, 4)}")),
        ("Ship to ZIP {}.", "〒{} 東京都渋谷区2-21-1", "Our postcode is {}."),
    ),
    "volumes": (
        lambda draw: f"{draw.randint(1, 20)}-{draw.randint(21, 110)}",
        ("Volumes {} of One Piece, 1997-2024.", "全{}巻セット、在庫12,345冊"),
    ),
    "16 digits, no card": (
        lambda draw: f"{digits(draw, 4, '0179')} {digits(draw, 4)} {digits(draw, 4)} {digits(draw, 4)}",
        ("Gift code {}.", "ギフトコード{}"),
    ),
    "version": (
        lambda draw: f"{draw.randint(1, 9)}.{draw.randint(0, 20)}.{draw.randint(0, 9)}.{draw.randint(0, 9)}",
        ("The app is version {}.", "バージョン{}"),
    ),
}


def innocent(count: int, seed: int = 0) -> list[Planted]:
    """`count` sentences of each kind with a number of a shop that is no personal data."""
    cases = []
    for group, (make, frames) in INNOCENT.items():
        draw = random.Random(f"{seed} {group}")
        cases += [Planted(group, frames[i % len(frames)].replace("{}", make(draw))) for i in range(count)]
    return cases
