"""Folders without a manifest, laid out as optimum exports them: served, or refused with what they leave open."""

import json
import logging
from pathlib import Path
from typing import Any

import made_variant
import numpy as np
import pytest
from made_variant import HEAD, LABELS, MAX_LENGTH, SEVERAL, dependent, variant

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.runtime import load

CONFIG: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"], "pad_token_id": 0, "max_position_embeddings": 512,
    "id2label": {str(i): label for i, label in enumerate(LABELS)}, "problem_type": "single_label_classification",
}  # fmt: skip
TOKENIZER: dict[str, Any] = {"model_max_length": MAX_LENGTH, "pad_token": "[PAD]"}
TEXTS = ["where is my order?", "", "refund " * 200]
NAMES = {"model.onnx": "model.onnx", "model.xml": "openvino_model.xml", "model.bin": "openvino_model.bin"}


def optimum(
    source: Path, to: Path, config: dict[str, Any] | None = None, tokenizer: dict[str, Any] | None = None
) -> Path:
    """The model and tokenizer of `source` without its manifest; a value of None leaves a key out."""
    folder = made_variant.copied(source, to)
    (folder / "manifest.json").unlink()
    for old, new in NAMES.items():
        if (folder / old).is_file():
            (folder / old).rename(folder / new)
    for name, base, changes in (("config.json", CONFIG, config), ("tokenizer_config.json", TOKENIZER, tokenizer)):
        content = {key: value for key, value in {**base, **(changes or {})}.items() if value is not None}
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_answers_as_the_same_model_with_a_manifest(
    tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = variant(backend=backend)
    folder = optimum(source, tmp_path)
    with caplog.at_level(logging.INFO):
        model = load(folder, threads=1)
    assert f"{folder} has no manifest.json" in caplog.text and f"{MAX_LENGTH} tokens" in caplog.text
    assert (model.manifest.backend, model.manifest.head) == (backend, HEAD)
    np.testing.assert_array_equal(model.outputs(TEXTS), load(source, threads=1).outputs(TEXTS))


@pytest.mark.parametrize(
    ("config", "head"),
    [({"problem_type": None}, HEAD), ({"problem_type": "multi_label_classification"}, SEVERAL)],
)
def test_the_head_is_read_as_transformers_reads_it(tmp_path: Path, config: dict[str, Any], head: Head) -> None:
    assert load(optimum(variant(), tmp_path, config), threads=1).manifest.head == head


def test_one_output_without_a_type_is_a_regression(tmp_path: Path) -> None:
    one = {"problem_type": None, "id2label": {"0": "LABEL_0"}}
    assert load(optimum(variant(Head("score", 1)), tmp_path, one), threads=1).manifest.head == Head("score", 1)


def test_padding_and_length_where_one_file_alone_knows_them(tmp_path: Path) -> None:
    folder = optimum(
        variant(), tmp_path, {"pad_token_id": None, "max_position_embeddings": 16}, {"truncation_side": "left"}
    )
    found = load(folder, threads=1).manifest
    assert (found.pad_id, found.max_length, found.truncation_side) == (0, 16, "left")


def test_activations_scaled_at_run_time_are_computed_text_by_text(tmp_path: Path) -> None:
    assert load(optimum(variant(), tmp_path / "plain"), threads=1).manifest.rows_independent
    model = load(optimum(dependent(tmp_path), tmp_path / "dynamic"), threads=1)
    assert not model.manifest.rows_independent
    np.testing.assert_array_equal(model.outputs(TEXTS, 3), np.concatenate([model.outputs([text]) for text in TEXTS]))


@pytest.mark.parametrize(
    ("config", "tokenizer", "message"),
    [
        ({"architectures": ["BertModel"]}, {}, r"holds a BertModel .*exports encoders with their pooling"),
        ({"id2label": None}, {}, r"config\.json does not name the labels"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, {}, "does not name the labels"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, {}, r"id2label must name the labels 0 to 2; it has no '0'"),
        ({"id2label": {"0": "a", "1": "b"}}, {}, r"answers a text with float32\[1, 3\]"),
        ({"problem_type": "ranking"}, {}, "problem_type 'ranking' is not known"),
        (
            {},
            {"model_max_length": None},
            r"tokenizer_config\.json .*model_max_length into it \(config\.json has 512 positions\)",
        ),
        ({}, {"model_max_length": 10**30}, "does not say how many tokens"),
        ({"pad_token_id": None}, {"pad_token": None}, r"write pad_token_id into config\.json"),
    ],
)
def test_what_is_left_open_is_refused(
    tmp_path: Path, config: dict[str, Any], tokenizer: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(optimum(variant(), tmp_path, config, tokenizer), threads=1)


def test_an_encoder_and_a_damaged_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gives \['embedding'\]; a classifier takes some of .* and gives logits"):
        load(optimum(variant(Head("vector", 5)), tmp_path / "encoder"))
    folder = optimum(variant(), tmp_path / "damaged")
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"onnxruntime .* cannot read .*model\.onnx"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        load(folder)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_folders_that_mangakd_exported_before_this_layout_load(backend: str) -> None:
    """Format 1 with model.onnx or model.xml, tokenizer.json, and no word on rows."""
    folder = variant(backend=backend)
    model = {"onnxruntime": {"model.onnx"}, "openvino": {"model.xml", "model.bin"}}[backend]
    assert {path.name for path in folder.iterdir()} == {*model, "tokenizer.json", "manifest.json"}
    assert "rows_independent" not in json.loads((folder / "manifest.json").read_text())
    assert load(folder, threads=1).predict(TEXTS)[0]["label"] in LABELS
