"""A sealed folder is read back; one that was changed, cut short or not finished is refused. No backend is needed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export import manifest
from mangakd.export.manifest import add_metrics, copy, place, read, seal

CONTENT = {
    "variant": "onnx_int8", "backend": "onnxruntime", "model": "model.onnx", "inputs": ["input_ids", "attention_mask"],
    "output": "logits", "head": {"kind": "labels", "outputs": 2, "names": ["a", "b"], "several": False}, "tolerance": 0.25,
    "tokenizer": {"file": "tokenizer.json", "max_length": 32, "truncation_side": "right", "pad_id": 0, "pad_type_id": 0},
    "versions": {}, "source": {}, "metrics": {},
}  # fmt: skip


def variant(out: Path, model: bytes = b"weights") -> Path:
    partial = out / "onnx_int8.partial"
    partial.mkdir()
    (partial / "model.onnx").write_bytes(model)
    (partial / "tokenizer.json").write_text("{}")
    seal(partial, CONTENT)
    return place(partial, out / "onnx_int8")


def test_what_is_sealed_is_read_back(tmp_path: Path) -> None:
    found = read(variant(tmp_path))
    assert found.head == Head.of_labels("ab") and found.tolerance == 0.25 and found.max_length == 32
    assert set(found.content["files"]) == {"model.onnx", "tokenizer.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["onnx_int8"]


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = variant(tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])  # one bit
    with pytest.raises(UserError, match=name):
        read(folder)


def test_a_lost_file_is_refused(tmp_path: Path) -> None:
    folder = variant(tmp_path)
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx"):
        read(folder)


def test_partial_is_refused_even_when_it_is_whole(tmp_path: Path) -> None:
    folder = variant(tmp_path)
    with pytest.raises(UserError, match="not finished"):
        read(folder.rename(tmp_path / "onnx_int8.partial"))


def test_metrics_are_added_and_the_rest_stays(tmp_path: Path) -> None:
    folder = variant(tmp_path)
    before = read(folder).content
    add_metrics(folder, {"validation": {"accuracy": 0.9}})
    add_metrics(folder, {"test": {"accuracy": 0.8}}, difference=0.1)
    after = read(folder).content
    assert after.pop("metrics") == {"validation": {"accuracy": 0.9}, "test": {"accuracy": 0.8}}
    assert after == {key: value for key, value in before.items() if key != "metrics"}


def test_the_tolerance_is_widened_to_what_was_seen(tmp_path: Path) -> None:
    folder = variant(tmp_path)
    add_metrics(folder, {}, difference=0.75)
    assert read(folder).tolerance == 0.75


def test_a_copy_is_whole_and_replaces_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "old").touch()
    best = copy(variant(tmp_path), tmp_path / "best")
    assert read(best).variant == "onnx_int8" and not (best / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "onnx_int8"]
    (tmp_path / "onnx_int8" / "model.onnx").write_bytes(b"other")
    with pytest.raises(UserError):
        copy(tmp_path / "onnx_int8", tmp_path / "best")
    assert read(best).variant == "onnx_int8"  # still the good one


class Killed(BaseException):
    """Stands for a kill between two system calls."""


def test_a_kill_at_every_step_leaves_the_old_the_new_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = -1

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return function(*arguments, **options)

        return call

    for module, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (Path, "rename")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    monkeypatch.setattr(manifest, "sha256", counted(manifest.sha256))
    for step in range(100):
        out = tmp_path / str(step)
        out.mkdir()
        left = -1
        variant(out, b"old")
        left = step
        try:
            variant(out, b"new")
        except Killed:
            left = -1
            for folder in out.iterdir():
                if not folder.name.endswith(".partial"):
                    assert read(folder).model.read_bytes() in (b"old", b"new"), f"killed at step {step}"
        else:
            assert read(out / "onnx_int8").model.read_bytes() == b"new"
            break
    assert 10 < step < 99


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = variant(tmp_path)
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 4}))
    with pytest.raises(UserError, match="format 4"):
        read(folder)
