"""What finds each kind of personal data: presidio's recognisers, run alone, and two of our own for what presidio lacks.

`AnalyzerEngine()` would download a language model, so recognisers run without one, and names and addresses are not found. Two
recognisers of presidio are changed: its e-mail recogniser asks the network for the list of top-level domains, and its credit card
recogniser takes 13-digit article numbers (JAN) and numbers of no issuer for cards, and no Mastercard that begins with 2.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mangakd.labelling.curate.extras import package

NEED = "filters.personal_data"
LOW, SURE = 0.05, 0.5  # presidio's scores of a pattern: needs a context word; needs none
BEFORE = 40  # characters in which a context word may stand
AFTER = 12


@dataclass(frozen=True)
class Kind:
    """name: of placeholders. context, denial: words near a match that speak for and against it. region: "" for all.

    always: a denial does not count, because a checksum or a form that nothing else has speaks for the match.
    """

    name: str
    context: tuple[str, ...] = ()
    denial: tuple[str, ...] = ()
    region: str = ""
    always: bool = False


ORDERS = (
    "order", "invoice", "tracking", "receipt", "isbn", "issn", "jan", "ean", "upc", "sku", "item", "product", "barcode",
    "serial", "model", "ref", "reference", "ticket", "coupon", "price", "parcel", "shipment",
    "注文", "受注", "伝票", "追跡", "送り状", "商品", "品番", "型番", "価格", "管理番号", "会員番号", "ポイント", "在庫",
    "クーポン", "シリアル", "レシート", "領収",
)  # fmt: skip
"""What stands before a number that a shop gave."""
PHONES = (
    "phone", "tel", "telephone", "mobile", "cell", "call", "fax", "contact", "text me", "reach", "sms",
    "電話", "携帯", "℡", "連絡先", "ファックス", "かけ", "スマホ",
)  # fmt: skip
KINDS: Mapping[str, Kind] = {
    "EMAIL_ADDRESS": Kind("EMAIL", always=True),
    "CREDIT_CARD": Kind("CARD", always=True),
    "IBAN_CODE": Kind("IBAN", always=True),
    "IP_ADDRESS": Kind("IP", ("ip", "address", "アドレス"), ("version", "ver", "firmware", "v.", "バージョン")),
    "URL": Kind("URL", always=True),
    "US_SSN": Kind("US_SSN", ("social", "security", "ssn", "社会保障"), ORDERS, "US"),
    "US_ITIN": Kind("US_ITIN", ("itin", "taxpayer", "tax id", "tin"), ORDERS, "US"),
    "JP_MY_NUMBER": Kind(
        "MY_NUMBER", ("マイナンバー", "個人番号", "my number", "mynumber", "individual number"), ORDERS, "JP"
    ),
    "PHONE_NUMBER": Kind("PHONE", PHONES, ORDERS),
}


@cache
def recognisers(regions: tuple[str, ...], kinds: frozenset[str]) -> tuple[Any, ...]:
    """Recognisers of the entities `kinds`. regions: codes of phonenumbers, such as US and JP; of US and JP also their numbers."""
    logging.getLogger("presidio-analyzer").setLevel(logging.WARNING)  # it logs each recogniser
    presidio = package("presidio_analyzer.predefined_recognizers", NEED)
    makers = {
        "EMAIL_ADDRESS": _email, "CREDIT_CARD": _card, "IBAN_CODE": presidio.IbanRecognizer, "IP_ADDRESS": presidio.IpRecognizer,
        "URL": presidio.UrlRecognizer, "US_SSN": presidio.UsSsnRecognizer, "US_ITIN": presidio.UsItinRecognizer,
        "JP_MY_NUMBER": _my_number, "PHONE_NUMBER": lambda: _phone(regions),
    }  # fmt: skip
    return tuple(make() for name, make in makers.items() if name in kinds and KINDS[name].region in ("", *regions))


def _email() -> Any:
    base = package("presidio_analyzer.predefined_recognizers", NEED).EmailRecognizer
    offline = package("tldextract", NEED).TLDExtract(suffix_list_urls=(), cache_dir=None)

    class Email(base):  # type: ignore[misc, valid-type]
        def validate_result(self, pattern_text: str) -> bool:
            """A domain under a known top-level domain, by the list in the package."""
            return bool(offline(pattern_text.rpartition("@")[2]).suffix)

    return Email()


def _card() -> Any:
    presidio = package("presidio_analyzer", NEED)
    base = package("presidio_analyzer.predefined_recognizers", NEED).CreditCardRecognizer

    class Card(base):  # type: ignore[misc, valid-type]
        def validate_result(self, pattern_text: str) -> bool:
            digits = re.sub(r"\D", "", pattern_text)
            return ISSUERS.fullmatch(digits) is not None and bool(super().validate_result(digits))

    groups = r"(?<![\w-])(?<!\d[. ])\d{4}(?:[ -]?\d{4}){3}(?:[ -]?\d{3})?(?![\w-])"
    amex = r"(?<![\w-])(?<!\d[. ])\d{4}[ -]?\d{6}[ -]?\d{4,5}(?![\w-])"
    return Card(patterns=[presidio.Pattern(name, each, 0.3) for name, each in (("4-4-4-4", groups), ("4-6-5", amex))])


ISSUERS = re.compile(
    r"4\d{15}(?:\d{3})?"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"  # American Express, Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14}(?:\d{3})?"  # Discover, UnionPay
)


def _my_number() -> Any:
    presidio = package("presidio_analyzer", NEED)

    class MyNumber(presidio.PatternRecognizer):  # type: ignore[misc, name-defined]
        def invalidate_result(self, pattern_text: str) -> bool:
            return not my_number_agrees(re.sub(r"\D", "", pattern_text))

    patterns = [
        presidio.Pattern("My Number in groups", r"(?<![\w+.-])(?<!\d )\d{4}([ -])\d{4}\1\d{4}(?![\w-]| \d)", SURE),
        presidio.Pattern("My Number", r"(?<![\w+.-])\d{12}(?![\w-])", LOW),
    ]
    return MyNumber(supported_entity="JP_MY_NUMBER", patterns=patterns, name="MyNumber")


def my_number_agrees(digits: str) -> bool:
    """Whether the last of 12 digits is the check digit of Japan's My Number.

    check = 11 − (Σ P_n Q_n mod 11), 0 where that remainder is 0 or 1. P_n: digit n of the first 11, from the right.
    Q_n: n + 1 for n up to 6, then n − 5.
    Source: ordinance 85 of 2014 of the Ministry of Internal Affairs and Communications, article 5.
    """
    first, check = digits[:-1][::-1], int(digits[-1])
    rest = sum(int(digit) * (n + 1 if n <= 6 else n - 5) for n, digit in enumerate(first, 1)) % 11
    return len(digits) == 12 and len(set(digits)) > 1 and check == (0 if rest <= 1 else 11 - rest)


def _phone(regions: tuple[str, ...]) -> Any:
    base = package("presidio_analyzer.predefined_recognizers", NEED).PhoneRecognizer
    return base(supported_regions=regions, leniency=1)
