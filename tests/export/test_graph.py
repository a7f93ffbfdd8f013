"""What is refused before anything is exported, and how a folder is read. Needs neither onnx nor openvino."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import student, torch_says
from transformers import GPT2Config, GPT2LMHeadModel

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export import graph
from mangakd.export.variants import ANY_STUDENT, VARIANTS, make
from mangakd.models.pooling import Pooling


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return student(tmp_path_factory.mktemp("graph") / "student", "classifier")


def change(folder: Path, name: str = "config.json", **entries: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_the_graph_answers_as_the_model(classifier: Path) -> None:
    source = graph.read(classifier, max_length=48)
    texts = ["where is my order", "a b"]
    assert source.answer(source.encode(texts)) == pytest.approx(torch_says(classifier, "classifier", texts), abs=1e-5)
    assert source.settings == {
        "file": "tokenizer.json", "max_length": 48, "truncation_side": "right", "pad_id": 0, "pad_type_id": 0,
    }  # fmt: skip
    assert len(source.source()["sha256"]) == 64 and source.source()["parameters"] > 100_000


def test_the_tokenizer_is_written_without_cutting_and_padding(classifier: Path, tmp_path: Path) -> None:
    source = graph.read(classifier)
    source.encode(["a", "b c"])  # sets both in the tokenizer
    source.save_settings(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    assert content["truncation"] is None and content["padding"] is None and content["model"]["vocab"]


def test_lengths(classifier: Path) -> None:
    assert graph.read(classifier).max_length == 128
    for length in (1, 129):
        with pytest.raises(UserError, match="2 to 128"):
            graph.read(classifier, max_length=length)


@pytest.mark.parametrize("pooling", [Pooling("cls", False), None])
def test_an_encoder_without_a_head_gives_embeddings(tmp_path: Path, pooling: Pooling | None) -> None:
    source = graph.read(student(tmp_path, "embedding"), pooling=pooling)
    assert (source.head.kind, source.output, source.head.names) == ("vector", "embedding", ())
    assert source.module.pooling.settings == (pooling or Pooling("mean", True))


def test_two_labels_of_one_name(tmp_path: Path) -> None:
    folder = student(tmp_path, "classifier")
    change(folder, id2label={"0": "a", "1": "a", "2": "b"}, label2id={"a": 0, "b": 2})
    with pytest.raises(UserError, match="two labels of one name"):
        graph.read(folder)


def test_a_head_without_weights(tmp_path: Path) -> None:
    folder = student(tmp_path, "embedding")
    change(folder, architectures=["BertForSequenceClassification"], id2label={"0": "no", "1": "yes"})
    with pytest.raises(UserError, match="its head has no weights"):
        graph.read(folder)


def test_labels_without_names(tmp_path: Path) -> None:
    folder = student(tmp_path, "classifier")
    change(folder, id2label={str(i): f"LABEL_{i}" for i in range(3)}, label2id={f"LABEL_{i}": i for i in range(3)})
    with pytest.raises(UserError, match=r"no label names: id2label.*LABEL_0 to LABEL_2"):
        graph.read(folder)
    change(folder, id2label={"0": "LABEL_0", "1": "refund", "2": "LABEL_2"})  # someone named them
    assert graph.read(folder).head.names == ("LABEL_0", "refund", "LABEL_2")


def test_a_number_needs_no_name(tmp_path: Path) -> None:
    folder = student(tmp_path, "regression")
    change(folder, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    assert graph.read(folder).head == Head("score", 1)


@pytest.mark.parametrize(("head", "known"), [("TokenClassification", False), ("MaskedLM", True)])
def test_heads_that_are_not_exported(tmp_path: Path, head: str, known: bool) -> None:
    folder = student(tmp_path, "embedding")
    change(folder, architectures=[f"BertFor{head}"])
    if known:
        assert graph.read(folder).head.kind == "vector"
        return
    with pytest.raises(UserError, match=f"head for {head}"):
        graph.read(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    folder = student(tmp_path, "classifier")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="tokenizer"):
        graph.read(folder)


@pytest.mark.parametrize("texts", [["a word"] * 40, [f"text {i}" for i in range(15)], [" " * i for i in range(40)]])
def test_calibration_texts_that_are_too_few_or_empty(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(UserError, match=r"openvino_int8 needs 16 or more training texts.*are different and not empty"):
        make(classifier, tmp_path / "export", ("onnx_fp32", "openvino_int8"), texts)
    assert not (tmp_path / "export").exists()


def test_a_model_that_generates(tmp_path: Path) -> None:
    folder = student(tmp_path, "embedding")
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=60)).save_pretrained(folder)
    with pytest.raises(UserError, match="generates text"):
        graph.read(folder)


def test_unknown_variants_and_missing_texts(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean onnx_int8"):
        make(classifier, tmp_path, ("onnx_int",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(UserError, match="openvino_int8 needs 16 or more training texts"):
        make(classifier, tmp_path, ("openvino_int8",))


def test_missing_packages_are_told_together(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    gone = ("onnx", "nncf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find(name) or True)
    with pytest.raises(UserError, match=r"onnx, nncf not installed.*mangakd\[onnx,openvino\]") as told:
        make(classifier, tmp_path, ANY_STUDENT, ["text"])
    assert "openvino_fp32" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_the_measured_process_has_no_torch() -> None:
    code = "import sys, mangakd.export.worker; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_variant_that_cannot_be_converted_is_named(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Model wasn't fully converted.\na log of a page")

    monkeypatch.setitem(VARIANTS, "onnx_fp32", replace(VARIANTS["onnx_fp32"], make=fail, needs={}))
    with pytest.raises(UserError, match=r"onnx_fp32 cannot be made of .* \(bert\): Model wasn't .* Remove onnx_fp32"):
        make(classifier, tmp_path / "export", ("onnx_fp32",))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_variant_that_answers_one_text_with_no_number_is_refused(
    bad: float, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of INT8, which may be as far from PyTorch as it likes."""
    source = graph.read(classifier)

    class Served:
        def outputs(self, texts: Sequence[str], batch: int) -> np.ndarray:
            rows = source.answer(source.encode(texts))
            rows[[text == "broken" for text in texts]] = bad
            return rows

    monkeypatch.setattr("mangakd.export.parity.open_unsealed", lambda manifest: Served())
    monkeypatch.setitem(VARIANTS, "onnx_int8", replace(VARIANTS["onnx_int8"], make=lambda *_: None, needs={}))
    with pytest.raises(UserError, match="onnx_int8 answers some texts with NaN or infinity"):
        make(classifier, tmp_path / "export", ("onnx_int8",), [*(f"text {i}" for i in range(9)), "broken"])
    assert make(classifier, tmp_path / "export", ("onnx_int8",), ["whole"])
