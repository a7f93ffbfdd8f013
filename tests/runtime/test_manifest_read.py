"""A folder that is not as it was exported is refused before its model is opened, and the error says what to do."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from made_variant import HEAD, LABELS, write_manifest

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.runtime import load, manifest

WRITTEN = asdict(HEAD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with some bytes in them: only their sums are looked at."""
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    write_manifest(tmp_path)
    return tmp_path


def test_a_whole_folder_is_read(folder: Path) -> None:
    found = manifest.read(folder)
    assert (found.model, found.tokenizer) == (folder / "model.onnx", folder / "tokenizer.json")
    assert found.head == HEAD and found.truncation_side == "right"


FORMAT_1: list[tuple[str, list[str], Head]] = [
    ("single_label", list(LABELS), HEAD),
    ("multi_label", list(LABELS), Head.of_labels(LABELS, several=True)),
    ("regression", ["quality"], Head("score", 1, ("quality",))),
    ("regression", [], Head("score", 1)),
    ("regression", ["joy", "anger"], Head("score", 2, ("joy", "anger"))),
    ("embedding", [], Head("vector", 0)),
]


@pytest.mark.parametrize(("problem", "labels", "head"), FORMAT_1)
def test_folders_of_format_1_are_read(folder: Path, problem: str, labels: list[str], head: Head) -> None:
    """They had `problem` and `labels` in place of `head`."""
    output = "embedding" if problem == "embedding" else "logits"
    write_manifest(folder, format=1, problem=problem, labels=labels, output=output)
    content = json.loads((folder / "manifest.json").read_text())
    del content["head"]
    (folder / "manifest.json").write_text(json.dumps(content))
    found = manifest.read(folder)
    assert found.head == head
    write_manifest(folder, **found.content)  # as an export that adds its metrics does
    assert manifest.read(folder).head == head


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_one_changed_bit_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[500] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is not the file that was exported.*Copy the folder again"):
        load(folder)


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model.onnx is missing.*copied in part"):
        load(folder)


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no manifest.json.*such as export/best"):
        load(tmp_path)


def test_an_unfinished_folder_is_refused(folder: Path) -> None:
    unfinished = folder.rename(folder.with_name("best.partial"))
    with pytest.raises(UserError, match="was not finished"):
        load(unfinished)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}', "\ud800", "[" * 100_000])
def test_a_damaged_or_newer_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="Export the student again"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "tensorrt"}, "backend is wrong"),
        ({"head": {**WRITTEN, "kind": "poetry"}}, "head.kind is wrong"),
        ({"head": {**WRITTEN, "kind": "tokens"}}, "head, output, decoding is wrong"),
        ({"head": {**WRITTEN, "kind": "vector"}}, "output is wrong"),
        ({"head": {**WRITTEN, "outputs": 2}}, "head.names is wrong"),
        ({"head": {**WRITTEN, "several": 1}}, "head is wrong"),
        ({"head": {**WRITTEN, "size": 1}}, "head is wrong"),
        ({"inputs": ["ids"]}, "inputs is wrong"),
        ({"head": {**WRITTEN, "names": ["a", "a", "b"]}}, "head.names is wrong"),
        ({"head": {**WRITTEN, "names": None}}, r"head\.names \(wanted list, found nothing\)"),
        ({"head": None}, r"head \(wanted dict, found nothing\)"),
        ({"format": 1}, r"problem \(wanted str, found nothing\)"),
        ({"format": 1, "problem": "poetry", "labels": []}, "problem is wrong"),
        ({"format": 1, "problem": "single_label"}, r"labels \(wanted list, found nothing\)"),
        ({"format": 1, "problem": "single_label", "labels": ["a", "a"]}, "head.names is wrong"),
        ({"tolerance": "small"}, r"tolerance \(wanted float, found 'small'\)"),
        ({"model": "other.onnx"}, "model is wrong"),
        ({"files": {"../secret": "0"}}, "files"),
        ({"tokenizer": {"file": "tokenizer.json"}}, r"tokenizer.max_length \(wanted int, found nothing\)"),
        ({"tokenizer": {"file": "tokenizer.json", "max_length": True, "pad_id": 0, "pad_type_id": 0}}, "max_length"),
        ({"tokenizer": {"file": "tokenizer.json", "max_length": 0, "pad_id": 0, "pad_type_id": 0}}, "max_length"),
    ],
)
def test_wrong_entries_are_named(folder: Path, change: dict[str, Any], message: str) -> None:
    write_manifest(folder, **change)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_no_name_leads_out_of_the_folder(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    for name in ("/etc/passwd", "../x", "a/b", "..\\x", ".."):
        content["files"] = {name: "0", **content["files"]}
        (folder / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="files is wrong"):
            load(folder)
        del content["files"][name]


def test_a_missing_backend_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from made_variant import save_tokenizer

    save_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    write_manifest(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime.*pip install onnxruntime"):
        load(tmp_path)


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="runs the model: pip install onnxruntime")
    from made_variant import save_tokenizer

    save_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    write_manifest(tmp_path)
    with pytest.raises(UserError, match=r"onnxruntime .* cannot open .*model.onnx"):
        load(tmp_path)
