"""Configs, tokenizers and label names as other tools write them: read where their meaning is clear, else refused with key, file
and cure."""

from pathlib import Path
from typing import Any

import pytest
from contract.tiny_models import LABELS, tokenizer
from model_folder import KEY, change, fine_tuned, labels

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models import load
from mangakd.models.configs import read_config
from mangakd.models.labels import alignment
from mangakd.teachers.local import Local


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fine_tuned(tmp_path / "model")


# --- names of labels in config.json ----------------------------------------------------------------------------------

NUMBERS = ("10", "20", "30", "40", "50")
READ: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a list": ({"id2label": list(LABELS), "label2id": None}, LABELS),
    "counted from 1": ({"id2label": {str(i + 1): name for i, name in enumerate(LABELS)}}, LABELS),
    "empty beside label2id": ({"id2label": {}, "label2id": {name: i for i, name in enumerate(LABELS)}}, LABELS),
    "names and ids swapped": ({"id2label": {name: i for i, name in enumerate(LABELS)}}, LABELS),
    "only label2id": ({"id2label": None, "label2id": {name: i for i, name in enumerate(LABELS)}}, LABELS),
    "label2id, ids as text": ({"id2label": None, "label2id": {name: str(i) for i, name in enumerate(LABELS)}}, LABELS),
    "label2id of numbers": ({"id2label": None, "label2id": {name: i for i, name in enumerate(NUMBERS)}}, NUMBERS),
    "numbers": ({"id2label": {str(i): int(name) for i, name in enumerate(NUMBERS)}}, NUMBERS),
    "whole floats": ({"id2label": [float(name) for name in NUMBERS]}, NUMBERS),
    "in no order": ({"id2label": {str(i): LABELS[i] for i in (3, 0, 4, 1, 2)}}, LABELS),
    "null for each": ({"id2label": {str(i): None for i in range(5)}}, tuple(f"LABEL_{i}" for i in range(5))),
    "no names, a count": ({"id2label": None, "label2id": None, "num_labels": 5}, tuple(f"LABEL_{i}" for i in range(5))),
    "no names, a count as text": (
        {"id2label": None, "label2id": None, "num_labels": "5"},
        tuple(f"LABEL_{i}" for i in range(5)),
    ),
}


@pytest.mark.parametrize("form", READ)
def test_names_of_labels_are_read_in_every_clear_form(form: str, folder: Path) -> None:
    entries, wanted = READ[form]
    assert labels(change(folder, **entries)) == wanted


@pytest.mark.parametrize("names", [
    {"0": "a", "2": "b"}, {"0": None, "1": "b"}, {"0": ["a"], "1": "b"}, {"2": "a", "3": "b"}, {"x": "a"}, [None, "a"], "a,b", 3,
], ids=str)  # fmt: skip
def test_names_that_are_not_clear_are_refused(names: Any, folder: Path) -> None:
    with pytest.raises(UserError, match=rf"id2label of config\.json of {KEY}=.*does not name the outputs 0, 1, 2"):
        labels(change(folder, id2label=names))


def test_a_head_with_another_number_of_outputs_names_both(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"config\.json names 2 labels, the head of .* has 5 outputs\. .*teacher\.labels"
    ):
        labels(change(folder, id2label={"0": "a", "1": "b"}, label2id=None))
    for none in ({}, None):
        with pytest.raises(UserError, match=r"config\.json names no labels, the head of .* has 5 outputs"):
            labels(change(folder, id2label=none, label2id=None))
    taken = load.trained_classifier(str(folder), KEY, list("vwxyz"))
    assert taken is not None and taken.config.id2label == dict(enumerate("vwxyz"))
    with pytest.raises(UserError, match=r"teacher\.labels names 2 labels, the head of .* has 5 outputs"):
        load.trained_classifier(str(folder), KEY, ["a", "b"])


# --- other entries of config.json ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entries", "name", "wanted"), [
    ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob", 0.1),
    ({"hidden_dropout_prob": 0}, "hidden_dropout_prob", 0),
    ({"hidden_dropout_prob": "0"}, "hidden_dropout_prob", 0),
    ({"layer_norm_eps": "1e-12"}, "layer_norm_eps", 1e-12),
    ({"max_position_embeddings": 512.0}, "max_position_embeddings", 512),
    ({"max_position_embeddings": "512"}, "max_position_embeddings", 512),
    ({"is_decoder": "False"}, "is_decoder", False),
    ({"is_decoder": 0}, "is_decoder", False),
    ({"architectures": "BertForSequenceClassification"}, "architectures", ["BertForSequenceClassification"]),
], ids=str)  # fmt: skip
def test_entries_of_another_type_are_read(entries: dict[str, Any], name: str, wanted: Any, folder: Path) -> None:
    assert getattr(load.load_config(str(change(folder, **entries))), name) == wanted
    assert labels(folder) == LABELS


@pytest.mark.parametrize(("content", "words"), [
    ({"hidden_dropout_prob": "a lot"}, ["hidden_dropout_prob", '"a lot"', "Correct that entry"]),
    ({"max_position_embeddings": 51.5}, ["max_position_embeddings", "51.5"]),
    ({"dtype": "float99"}, ["describes no bert", "float99"]),
    ({"model_type": "brt"}, ["model_type='brt'", "did you mean bert"]),
    ({"model_type": None}, ["has no model_type"]),
    ({"num_attention_heads": 0}, ["num_attention_heads=0", "must be a whole number from 1 on"]),
    ({"num_hidden_layers": -1}, ["num_hidden_layers=-1", "must be a whole number from 1 on"]),
    ({"pad_token_id": 99999}, ["pad_token_id=99999", "vocab_size=130: ids go from 0 to 129"]),
    ({"quantization_config": {"quant_method": "gptq"}}, ["quantization_config (gptq)", "the unquantised model"]),
    ({"quantization_config": {"load_in_4bit": True}}, ["quantization_config", "the unquantised model"]),
], ids=str)  # fmt: skip
def test_entries_that_cannot_be_read_are_named(content: dict[str, Any], words: list[str], folder: Path) -> None:
    with pytest.raises(UserError) as raised:
        load.load_config(str(change(folder, **content)))
    assert all(word in str(raised.value) for word in [*words, f"config.json of {KEY}={folder}"]), raised.value


def test_json_that_is_no_object(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"config\.json of .* holds no JSON object"):
        read_config(str(folder), f"{KEY}={folder}")


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_the_attention_of_a_config_is_left_to_the_hardware(name: str, folder: Path) -> None:
    assert labels(change(folder, **{name: "flash_attention_2"})) == LABELS


def test_a_byte_order_mark_is_read_over(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert labels(folder) == LABELS
    assert len(load.load_tokenizer(str(folder))) == len(tokenizer())


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.mark.parametrize(("name", "content", "words"), [
    ("tokenizer_config.json", "[1]", r"tokenizer_config\.json of teacher\.path=.* holds no object\. Save it again"),
    ("tokenizer_config.json", "{", r"tokenizer_config\.json of teacher\.path=.* is no JSON"),
    ("tokenizer.json", "{}", r"tokenizer\.json of teacher\.path=.* holds no object with the entry 'model'"),
    ("tokenizer.json", POINTER, r"tokenizer\.json is a pointer of Git LFS.*git lfs pull"),
    ("adapter_config.json", "[]", r"adapter_config\.json holds a list, not an object"),
    ("model.safetensors", POINTER, r"model\.safetensors is a pointer of Git LFS.*git lfs pull"),
    ("config.json", POINTER, r"config\.json is a pointer of Git LFS.*git lfs pull"),
], ids=str)  # fmt: skip
def test_files_that_hold_something_else_are_named(name: str, content: str, words: str, folder: Path) -> None:
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=words):
        load.load_tokenizer(str(folder))
        labels(folder)


# --- names beside the data's -----------------------------------------------------------------------------------------


def test_labels_of_a_teacher_are_texts_of_any_scalar() -> None:
    assert Local(path="x", labels=[0, 1.0, 2.5, True, "a"]).labels == ["0", "1", "2.5", "True", "a"]
    for wrong in ([1, "1"], [None, "a"], [["a"], "b"]):
        with pytest.raises(UserError, match="label"):
            Local(path="x", labels=wrong)


@pytest.mark.parametrize(("teacher", "data", "shown"), [
    (" a", "a", ["only the teacher has ' a'", "only the data has 'a'"]),
    ("cafe\u0301", "caf\u00e9", ["'cafe\\u0301'", "'caf\\xe9'"]),
    ("\uff41", "a", ["'\\uff41'", "'a'"]),
    ("a\u200b", "a", ["'a\\u200b'"]),
    ("Refund", "refund", ["'Refund'", "'refund'"]),
    ("a\tb", "c", ["'a\\tb'", "has c"]),
    ("返品", "配送", ["only the teacher has 返品", "only the data has 配送"]),
], ids=ascii)  # fmt: skip
def test_names_that_look_alike_are_quoted(teacher: str, data: str, shown: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        alignment(Head.of_labels((teacher, "z")), Head.of_labels((data, "z")), "x")
    assert all(words in str(raised.value) for words in shown), raised.value
