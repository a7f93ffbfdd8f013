"""Tokenizers of one family that differ in tokens held in reserve, as those of Llama 3 and Llama 3.1."""

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import AddedToken

from mangakd.models.embedded_tiny import train_tokenizer
from mangakd.models.reserved import differ_in_reserved

TEXTS = ["where is my order", "the order is on its way"] * 9
LLAMA_3 = ["<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>"]
LLAMA_3_1 = ["<|finetune_right_pad_id|>", "<|reserved_0|>", "<|eom_id|>"]


def reader(names: Sequence[str], texts: Sequence[str] = TEXTS, special: bool = True) -> Any:
    tokenizer = train_tokenizer(texts)
    tokenizer.add_tokens([AddedToken(name, special=special) for name in names], special_tokens=special)
    return tokenizer


def test_names_of_reserved_tokens_do_not_matter() -> None:
    assert differ_in_reserved(reader(LLAMA_3), reader(LLAMA_3_1))
    assert differ_in_reserved(reader(LLAMA_3_1), reader(LLAMA_3))
    assert not differ_in_reserved(reader(LLAMA_3), reader(LLAMA_3)), "equal ones differ in nothing"


@pytest.mark.parametrize(
    "other",
    [
        reader(["<|a|>", "<|reserved_1|>", "<|reserved_2|>", "<|more|>"]),
        reader(LLAMA_3_1, ["another language"] * 9),
        reader(LLAMA_3_1, special=False),
    ],
    ids=["one more", "other texts", "not special"],
)
def test_other_differences_matter(other: Any) -> None:
    assert not differ_in_reserved(reader(LLAMA_3), other)


def test_two_names_for_one_token_matter() -> None:
    assert not differ_in_reserved(reader(["<|pad|>", *LLAMA_3[1:]]), reader(["<|eom|>", *LLAMA_3[1:]]))
