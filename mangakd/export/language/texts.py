"""The texts, prompts and conversations that a variant is compared on with the student, whatever the student learnt.

Tokenizers differ where texts are unlike prose: runs of blanks and digits, code, apostrophes, other scripts, emojis, control
characters, and names of special tokens. llama.cpp has its own code for each way to split a text, and a wrong way changes the
ids of nearly all of these texts and of few plain sentences.
"""

from collections.abc import Iterator, Sequence
from itertools import product

from mangakd.export.language.engine import Messages

_SENTENCES = (
    "The capital of France is Paris, and the capital of Germany is Berlin.",
    "Don't you think we've done it? I'd say they'll agree.", "It costs $1,234.56 (or 12 % less)…",
    "Where is my order no. 20240117-0042?", "Call +49 30 1234567 at 18:30.",
    "ALL CAPS AND CamelCaseWords and snake_case_words", "naïve café, coöperation, Zürich, São Paulo, Łódź",
    "Быстрая коричневая лиса прыгает через ленивую собаку.", "Где мой заказ № 42?",
    "敏捷的棕色狐狸跳过懒狗。我的订单在哪里？", "東京の本屋さんで漫画を３冊買いました。",
    "나는 만화책을 세 권 샀어요.", "الثعلب البني السريع يقفز فوق الكلب الكسول.", "שלום עולם, איפה ההזמנה שלי?",
    "नमस्ते दुनिया, मेरा ऑर्डर कहाँ है?", "Γειά σου Κόσμε, πού είναι η παραγγελία μου;", "สวัสดีชาวโลก",
    "family 👨‍👩‍👧‍👦, thumbs 👍🏽, flag 🇫🇷", "e\u0301 and é, ﬁ and fi, ½ and Ⅷ",
    "quotes “double” ‘single’ «guillemets» — dash – hyphen-",
)  # fmt: skip
_CODE = (
    "def main(argv: list[str]) -> int:\n    return 0 if argv else 1\n", "for (int i=0;i<10;++i){a[i]+=0x1F;}",
    "SELECT * FROM t WHERE a>='x';", "\tif x:\n\t\tpass\n\n\n# end", "<div class=\"a\">text</div>",
    "git commit -m 'fix #12' && make -j8", "https://example.org/a/b?c=1&d=%20#e", "user@example.org",
    "C:\\Users\\me\\file.txt", "x = y**2 != z//3 or not (a @ b)", "$E = mc^2$ \\frac{a}{b}",
)  # fmt: skip
_ODD = (
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", " \n", "\n ", "\r\n", "a\r\nb", " a", "  a", "a ", "a  ",
    "a  b", "a   b", "a\tb", "a \n b", "a\n\nb", "  \n  a", "\u00a0a", "a\u3000b", "\u200b", "1", "12", "123", "1234",
    "12345", "1234567890", "1 2 3", "3.14159", "1,000,000", "007", "٣٤٥", "a1b2c3", "x86_64", "!", "!!!", "...", "…",
    "--", "----", "====", "a.b.c", "'", "''", "'s", "'S", "I'M", "we'Re", "(a)", "[a]", "{a}", "a/b", "a\\b", "@a",
    "#a", "$a", "%a", "^a", "&a", "*a", "_a_", "~a", "`a`", "ab" * 40, "é" * 20, "0" * 30, "\x00", "\x1b[0m",
    "\ufeffa", "\U0001f600", "\U0001d54f", "ｗｉｄｅ",
)  # fmt: skip
_SPECIAL = (
    "<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>", "[INST] a [/INST]", "<0x0A>",
    "<|eot_id|>", "▁a ▁▁b",
)  # fmt: skip
LEAST = 200  # texts
PROMPTS = (
    "The capital of France is", "Once upon a time", "def fibonacci(n):", "Water boils at", "The meaning of life is",
    "1, 2, 3, 4,", "Dear customer,", "Where is my order?", "The quick brown fox", "In 1969,",
    "Question: What is 2 + 2?\nAnswer:", "import numpy as", "Roses are red,", "The largest planet is",
    "She opened the door and", "To be or not to be,", "My favourite book is", "Le chat est", "Hello, my name is",
    "A good way to learn is",
)  # fmt: skip
CONVERSATIONS: Sequence[Messages] = (
    (("user", "Where is my order?"),),
    (("system", "Answer briefly."), ("user", "  Hello!\n"), ("assistant", "Hi."), ("user", "What is 2 + 2?")),
)


def texts(special: Sequence[str]) -> list[str]:
    """LEAST texts or more, each once. special: names of the tokenizer's special tokens, which are texts among other words."""
    return [*dict.fromkeys(_all(special))]


def _all(special: Sequence[str]) -> Iterator[str]:
    yield from (*_SENTENCES, *_CODE, *_ODD, *_SPECIAL)
    for name in special:
        yield from (name, f"a{name}b", f" {name} ", f"say {name}\n", name[:-1])
    for before, text in product((" ", "\n", "a. "), (*_SENTENCES, *_CODE)):
        yield before + text
