"""Copies, near copies, quotations of evaluation texts, refusals and languages: planted in texts made here, by a seed."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

ENGLISH_WORDS = """
the shop volume order parcel reader series author chapter cover paper edition reprint shelf stock receipt
refund return week month delivery counter member point gift box set sale price story hero battle island ghost
school club magic robot train city summer winter letter promise secret garden kitchen music dream river
mountain window teacher sister captain doctor knight forest mirror ships arrives opens closes includes costs
follows explains begins ends offers holds keeps reads finds brings sends packs new old long short rare signed
large small quiet bright final early late open with from about after before until because
"""
JAPANESE_WORDS = """
漫画 注文 配送 在庫 返品 交換 会員 作品 作者 巻数 発売 予約 店舗 棚 書籍 表紙 特典 価格
送料 支払い 物語 主人公 戦い 島 学校 魔法 列車 夏 冬 手紙 約束 秘密 庭 音楽 夢 川 山
窓 先生 妹 船長 医者 騎士 森 鏡 新しい 古い 長い 短い 珍しい 大きな 小さな 静かな 明るい
届きます 開きます 終わります 始まります 含みます 続きます 説明します 送ります 見つかります
選べます
"""
ENGLISH, JAPANESE = ENGLISH_WORDS.split(), JAPANESE_WORDS.split()
PARTICLES = ("は", "が", "を", "に", "の", "と", "で", "も", "から", "まで", "。")


class Case(NamedTuple):
    """copy: whether the row should be left out."""

    group: str
    row: dict[str, Any]
    copy: bool


def words(draw: random.Random, count: int, japanese: bool) -> list[str]:
    """Japanese: each word with the particle after it."""
    if japanese:
        return [draw.choice(JAPANESE) + draw.choice(PARTICLES) for _ in range(count)]
    return [draw.choice(ENGLISH) for _ in range(count)]


def joined(parts: list[str], japanese: bool) -> str:
    return ("" if japanese else " ").join(parts)


def changed(draw: random.Random, parts: list[str], count: int, japanese: bool) -> list[str]:
    """With `count` other words."""
    parts = list(parts)
    for place in draw.sample(range(len(parts)), count):
        parts[place] = words(draw, 1, japanese)[0]
    return parts


def near_copies(count: int, seed: int = 0) -> list[Case]:
    """Rows of 60 words and their copies, with 1, 3, 6, 15 and 30 other words; and rows of one template with other slots."""
    cases = []
    for japanese in (False, True):
        draw = random.Random(f"{seed} {japanese}")
        language = "Japanese" if japanese else "English"
        for i in range(count):
            parts = words(draw, 60, japanese)
            text = joined(parts, japanese)
            cases.append(Case(f"{language}, other texts", row(f"{language} {i}", text), False))
            loud = text.upper().replace(" ", "  ") + "!!" if not japanese else "　".join((text[:30], text[30:])) + "！"
            cases.append(Case(f"{language}, case and punctuation", row(f"{language} {i}", loud), True))
            for other, copy in ((1, True), (3, True), (6, False), (15, False), (30, False)):
                new = joined(changed(draw, parts, other, japanese), japanese)
                cases.append(Case(f"{language}, {other} of 60 words differ", row(f"{language} {i}", new), copy))
    draw = random.Random(f"{seed} template")
    for i in range(count):
        titles = [" ".join(words(draw, 3, False)).title() for _ in range(3)]
        answer = f"Yes, we have {titles[0]}, volume {i}. Readers of it also like {titles[1]} and {titles[2]}."
        cases.append(Case("one template, other books", row(f"Do you sell {titles[0]}, volume {i}?", answer), False))
    return cases


def row(prompt: str, answer: str) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer}


def overlaps(count: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[Case]]:
    """The rows of an evaluation set, and rows that quote it or do not."""
    tests, cases = [], []
    for japanese in (False, True):
        draw = random.Random(f"{seed} overlap {japanese}")
        language = "Japanese" if japanese else "English"
        size = 2 if japanese else 1  # a word of Japanese is two characters or more, and a run has 26 characters
        for i in range(count):
            parts = words(draw, 40, japanese)
            short = [joined(words(draw, 4, japanese), japanese)[:14]] if japanese else words(draw, 4, japanese)
            tests += [row(joined(parts, japanese), joined(words(draw, 30, japanese), japanese))]
            tests += [row(joined(short, japanese), f"{language} yes")]
            around = words(draw, 30, japanese), words(draw, 30, japanese)
            for name, quote, copy in (
                ("20 words of a test prompt", parts[8:28], True),
                ("6 words of a test prompt", parts[8 : 8 + 6 // size], False),
                ("a short test prompt within a text", short, False),
                ("no word", [], False),
            ):
                text = joined([*around[0], *quote, *around[1]], japanese)
                cases.append(Case(f"{language}, {name}", row(f"{language} question {i} {name}", text), copy))
            cases.append(
                Case(
                    f"{language}, a short test prompt", row(joined(short, japanese), joined(around[0], japanese)), True
                )
            )
            cases.append(
                Case(
                    f"{language}, a short test answer", row(f"{language} other question {i}", f"{language} yes"), False
                )
            )
    return tests, cases


REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot assist with this request.",
    "As an AI language model, I do not read manga.",
    "I am unable to provide that information.",
    "I can't provide legal advice.",
    "Sorry, I won't write that.",
    "I must decline this request.",
    "I'm afraid I can't answer that.",
    "That would be against my guidelines.",
    "I'm just an AI, so I have no favourites.",
    "I cannot help you with pirated scans.",
    "Unfortunately, I am not able to discuss this topic.",
    "申し訳ありませんが、そのご質問にはお答えできません。",
    "AIとして、個人的な意見はありません。",
    "申し訳ございません。そのリクエストには対応できません。",
    "恐れ入りますが、お手伝いできません。",
    "その件についてはお答えいたしかねます。",
    "ご要望にお応えできません。",
    "言語モデルなので、漫画を読むことはできません。",
    "すみませんが、回答することができません。",
    "申し訳ありませんが、お答えすることはできません。",
    "その内容についてはご案内できかねます。",
)
ANSWERS = (
    "I'm sorry, this volume is out of stock.",
    "I'm sorry, but we cannot ship to Alaska.",
    "Sorry for the delay! Your parcel arrives on Monday.",
    "We can't refund opened box sets.",
    "You cannot return digital volumes.",
    "I can help you with that.",
    "I can't wait for volume 12 either!",
    "Unfortunately, the store is closed on Sunday.",
    "We are unable to change the address of an order that has shipped.",
    "The AI in this series is the villain.",
    "Our return policy allows thirty days.",
    "I cannot find order 1234; is the number right?",
    "申し訳ございませんが、在庫がございません。",
    "申し訳ありません。発送が遅れております。",
    "返品はお受けできません。",
    "この商品は海外へ発送できません。",
    "はい、お手伝いいたします。",
    "AIが主人公の作品です。",
    "ご質問ありがとうございます。",
    "キャンセルはできませんのでご注意ください。",
    "電子書籍は返品できません。",
    "ご注文の変更に対応しております。",
)
LANGUAGES = {
    "en": (
        "Your order ships tomorrow and should arrive by Friday.",
        "Yes, One Piece and Naruto are both on the second shelf.",
        "Returns are free within thirty days of delivery.",
    ),
    "ja": (
        "ご注文の商品は明日発送いたします。到着まで少々お待ちください。",
        "はい、ワンピースは二階の棚にございます。",
        "返品は商品到着後三十日以内にお願いいたします。",
    ),
    "de": (
        "Ihre Bestellung wird morgen verschickt und kommt am Freitag an.",
        "Ja, der Band ist auf Lager und kostet neun Euro.",
        "Die Rückgabe ist innerhalb von dreißig Tagen kostenlos.",
    ),
    "fr": (
        "Votre commande part demain et arrivera vendredi.",
        "Oui, ce volume est en stock au deuxième étage.",
        "Les retours sont gratuits pendant trente jours.",
    ),
    "es": (
        "Su pedido sale mañana y llegará el viernes.",
        "Sí, ese tomo está disponible en la segunda planta.",
        "Las devoluciones son gratuitas durante treinta días.",
    ),
    "zh": (
        "您的订单将于明天发货，预计星期五送达，请耐心等待。",
        "是的，这本漫画目前有库存，欢迎来店里购买。",
        "收到商品后三十天内可以免费退货，请保留收据。",
    ),
    "ko": (
        "주문하신 상품은 내일 발송되며 금요일에 도착합니다.",
        "네, 그 책은 이층 책장에 재고가 있습니다.",
        "배송 후 삼십 일 이내에는 무료로 반품할 수 있습니다.",
    ),
}
