"""The runtime's tokens are transformers' tokens: any text, any length, with the special tokens where they belong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_variant import save_tokenizer

from mangakd.core.errors import UserError
from mangakd.runtime.tokenise import Tokeniser, whole

TEXTS = ["", "where is my order?", "refund " * 100, "Ünï 東京 🎌", "[SEP] [MASK]", "a\x00b\u200b", " ", "x" * 5000]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def hugging_face(file: Path, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers", reason="compared with: pip install transformers")
    return transformers.BertTokenizerFast(
        tokenizer_file=str(file), pad_token="[PAD]", split_special_tokens=True, **options
    )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [3, 17, 64])
def test_tokens_are_those_of_hugging_face(file: Path, side: str, max_length: int) -> None:
    tokenizer = hugging_face(file, truncation_side=side)
    tokeniser = Tokeniser(file, max_length, truncation_side=side)
    wanted = tokenizer(TEXTS, truncation=True, max_length=max_length, padding=True, return_tensors="np")
    found = tokeniser.pad(tokeniser(TEXTS), list(wanted))
    assert set(found) == {"input_ids", "attention_mask", "token_type_ids"}
    for name, array in found.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, wanted[name])


def test_any_unicode_has_the_tokens_of_hugging_face(file: Path) -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="property tests: pip install hypothesis")
    tokenizer, tokeniser = hugging_face(file), Tokeniser(file, 24)

    @hypothesis.settings(max_examples=200, deadline=None, database=None)
    @hypothesis.given(hypothesis.strategies.text(max_size=60))
    def same(text: str) -> None:
        assert tokeniser([text])[0].ids == tokenizer(text, truncation=True, max_length=24)["input_ids"]

    same()


def test_truncation_that_the_file_names_is_not_used(file: Path, tmp_path: Path) -> None:
    """save_pretrained writes the last padding and truncation into tokenizer.json."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokeniser = Tokeniser(tmp_path / "tokenizer.json", 16)
    assert [len(encoding) for encoding in tokeniser(["where", "where " * 50])] == [3, 16]


def test_lone_surrogates_become_one_replacement_character() -> None:
    assert whole("a\ud83d b\udc00") == "a\ufffd b\ufffd"
    assert whole("\ud83d\ude00") == "\U0001f600"  # a pair in two halves, as some JSON writers leave it
    assert whole("plain") == "plain" and whole("東京🎌") == "東京🎌"


def test_a_text_without_tokens_still_has_one_column(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]"))
    bare.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    bare.save(str(tmp_path / "bare.json"))
    tokeniser = Tokeniser(tmp_path / "bare.json", 4, pad_id=7)
    arrays = tokeniser.pad(tokeniser(["", "a a"]), ["input_ids", "attention_mask"])
    assert arrays["input_ids"].tolist() == [[7, 7], [1, 1]] and arrays["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert tokeniser.pad(tokeniser([""]), ["input_ids"])["input_ids"].shape == (1, 1)


def test_what_cannot_work_is_told(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is too small for a text: special tokens alone take 2"):
        Tokeniser(file, 2)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="holds no tokenizer"):
        Tokeniser(tmp_path / "bad.json", 8)
