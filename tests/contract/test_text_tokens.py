"""Training, store and runtime read a text as the same tokens, and a special token that is written in a text as text.

Tokenizers of the four kinds of model, trained here: WordPiece (BERT), byte-level BPE (RoBERTa, GPT-2), Unigram (XLM-R, T5), and
WordPiece on whole words, which finds a special token in its vocabulary.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract.tiny_models import tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mangakd.data.tokenising import tokenise
from mangakd.models.load import load_tokenizer, vocabulary_digest
from mangakd.runtime.tokenise import Tokeniser

LENGTH = 24
LINES = [
    "where is my order",
    "the refund is late",
    "ship the parcel <b> now / then > s [x] | endoftext é 東京 sep cls",
] * 20
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NAMES = {
    ROBERTA: dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), ROBERTA, strict=True))
    | {"cls_token": "<s>", "sep_token": "</s>"},
    BERT: dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERT, strict=True)),
    ("<|endoftext|>",): dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>"),
}


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=list(ROBERTA), unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return made


def byte_level(special: tuple[str, ...]) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    if special == ROBERTA:
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


def word_piece(whole_words: bool) -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=not whole_words)
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if whole_words else pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        LINES, trainers.WordPieceTrainer(vocab_size=160, special_tokens=list(BERT), show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


KINDS: dict[str, tuple[Callable[[], Tokenizer], tuple[str, ...]]] = {
    "unigram": (unigram, ROBERTA),
    "byte-level bpe": (lambda: byte_level(ROBERTA), ROBERTA),
    "byte-level bpe without frame": (lambda: byte_level(("<|endoftext|>",)), ("<|endoftext|>",)),
    "wordpiece": (lambda: word_piece(False), BERT),
    "wordpiece on whole words": (lambda: word_piece(True), BERT),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """(a folder as others save it, the special tokens)."""
    folder = tmp_path_factory.mktemp("tokenizer")
    return folder, save(request.param, folder)


def save(kind: str, folder: Path, model: str = "bert") -> tuple[str, ...]:
    make, special = KINDS[kind]
    tokenizer = make()
    tokenizer.add_tokens([f"filler{i}" for i in range(100)])  # fewer than 100 tokens are taken for a broken folder
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMES[special]).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model}))
    return special


def texts(special: tuple[str, ...]) -> list[str]:
    around = ("{}", "a{}", "{}b", "a {} b", " {} ", "<{}>", "order{}{}late")
    plain = ["", " ", "where is my order", "é 東京 🎌", "late " * 50, "x\u200b\x00y", "thanks \ud83d", "＜/s＞ ＜s＞"]
    return [
        *plain,
        *(form.format(*[token] * form.count("{}")) for form in around for token in special),
        "".join(special),
    ]


def test_a_special_token_in_a_text_is_text(made: tuple[Path, tuple[str, ...]]) -> None:
    folder, special = made
    tokenizer = load_tokenizer(str(folder))
    framed = tokenizer("")["input_ids"]
    controls = {tokenizer.convert_tokens_to_ids(token) for token in special if token not in ("[UNK]", "<unk>")}
    for text in texts(special)[3:]:
        ids = tokenizer(text.encode("utf-8", "replace").decode())["input_ids"]
        assert [i for i in ids if i in controls] == [i for i in framed if i in controls], text
    plain = AutoTokenizer.from_pretrained(folder)
    assert plain("where is my order")["input_ids"] == tokenizer("where is my order")["input_ids"], (
        "other texts as before"
    )


def test_training_and_runtime_read_the_same_tokens(made: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    folder, special = made
    tokenizer = load_tokenizer(str(folder))
    lines = texts(special)
    tokens = tokenise(lines, tokenizer, LENGTH, tmp_path / "cache")
    trained = [tokens[i].tolist() for i in range(len(tokens))]
    exported = tmp_path / "tokenizer.json"
    exported.write_text(tokenizer.backend_tokenizer.to_str())
    for file in (exported, folder / "tokenizer.json"):  # the second as an export of before would have it
        assert [encoding.ids for encoding in Tokeniser(file, LENGTH)(lines)] == trained


def test_a_saved_student_reads_the_same_tokens(made: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    folder, special = made
    tokenizer = load_tokenizer(str(folder))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    again = load_tokenizer(str(tmp_path))
    assert vocabulary_digest(again) == vocabulary_digest(tokenizer)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str(), "a second call changes nothing"
    lines = [text for text in texts(special) if text.isascii()]
    for other in (again, AutoTokenizer.from_pretrained(tmp_path)):
        assert other(lines)["input_ids"] == tokenizer(lines)["input_ids"]


def test_tokens_cached_with_the_other_reading_are_not_used(made: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    folder, special = made
    other, tokenizer = AutoTokenizer.from_pretrained(folder), load_tokenizer(str(folder))
    lines = [f"a {special[-1]} b", "where is my order"]
    before, after = (tokenise(lines, each, LENGTH, tmp_path) for each in (other, tokenizer))
    assert before.keys[0] != after.keys[0] and before.keys[1] == after.keys[1]


def test_models_that_cannot_build_the_token_keep_their_steps(made: tuple[Path, tuple[str, ...]]) -> None:
    """So the stores and teachers that were made with them stay valid."""
    folder, _ = made
    before, after = (json.loads(text) for text in (
        (folder / "tokenizer.json").read_text(), load_tokenizer(str(folder)).backend_tokenizer.to_str()
    ))  # fmt: skip
    guarded = before["model"]["type"] == "Unigram" or before["pre_tokenizer"]["type"] == "WhitespaceSplit"
    assert (after["pre_tokenizer"] != before["pre_tokenizer"]) == guarded
    added = [{**token} for token in after["added_tokens"]]
    assert (added, after["model"], after["normalizer"]) == (
        before["added_tokens"],
        before["model"],
        before["normalizer"],
    )


def test_xlm_roberta_reads_the_same_tokens(tmp_path: Path) -> None:
    """Its class builds the steps before the model anew, so what is written in tokenizer.json about them is lost."""
    special = save("unigram", tmp_path, "xlm-roberta")
    settings: dict[str, Any] = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "XLMRobertaTokenizer"}))
    tokenizer = load_tokenizer(str(tmp_path))
    assert type(tokenizer).__name__ == "XLMRobertaTokenizer"
    exported = tmp_path / "exported.json"
    exported.write_text(tokenizer.backend_tokenizer.to_str())
    lines = [text for text in texts(special) if "\ud83d" not in text]
    wanted = [tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"] for text in lines]
    assert [encoding.ids for encoding in Tokeniser(exported, LENGTH)(lines)] == wanted
    assert 2 not in tokenizer("a </s> b", add_special_tokens=False)["input_ids"]


def test_tokenizers_are_known_by_what_they_do() -> None:
    assert vocabulary_digest(tokenizer()) == vocabulary_digest(tokenizer())
    assert vocabulary_digest(tokenizer()) != vocabulary_digest(tokenizer(closed=False)), "special tokens differ"
