"""Digests of lines, rows, keys and tensors of a file, and what they say of a changed one."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from mangakd.data.file_parts import Parts, parts_of

ABC = "ba7816bf"  # sha256 of "abc", FIPS 180-2, its first 8 digits
EMPTY = "e3b0c442"  # sha256 of nothing


def parts(file: Path, content: str | bytes) -> Parts:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = parts_of(file)
    assert found is not None
    return Parts.read(json.loads(json.dumps(found.entry())))  # as a run keeps it


def test_lines_have_known_digests(tmp_path: Path) -> None:
    assert parts(tmp_path / "a.csv", b"abc\r\n\nabc") == Parts("line", (ABC, EMPTY, ABC))


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ("a\nb\nc\nd\n", ""),
        ("a\nB\nc\nD\n", "lines 2, 4 changed"),
        ("a\nc\nd\n", "line 2 gone"),
        ("a\nb\nx\ny\nc\nd\n", "lines 3, 4 new"),
        ("a\nX\nc\n", "line 2 changed; line 4 gone"),
        ("0\na\nb\nc\nd", "line 1 new"),
        ("", "lines 1, 2, 3, 4 gone"),
    ],
)
def test_a_changed_line_is_named(tmp_path: Path, after: str, words: str) -> None:
    before = parts(tmp_path / "a.jsonl", "a\nb\nc\nd\n")
    assert before.changes(parts(tmp_path / "a.jsonl", after)) == words


def test_many_changes_are_counted(tmp_path: Path) -> None:
    before = parts(tmp_path / "a.txt", "".join(f"{i}\n" for i in range(9)))
    assert before.changes(parts(tmp_path / "a.txt", "x\n" * 9)) == "lines 1, 2, 3, 4, 5 and 4 more changed"
    long = parts(tmp_path / "a.txt", "a\n" + "".join(f"{i}\n" for i in range(9000)))
    other = parts(tmp_path / "a.txt", "a\n" + "x\n" * 8000)
    assert long.changes(other) == "9001 lines before, 8001 now; they differ from line 2 on"


def test_keys_of_yaml_and_json_are_named(tmp_path: Path) -> None:
    before = parts(tmp_path / "a.yaml", "seed: 0\ndistill: {alpha: 0.7, beta: 1}\nold: 1\n")
    after = parts(tmp_path / "a.yaml", "seed: 0\ndistill: {alpha: 0.5, beta: 1}\nnew: 1\n")
    assert before.changes(after) == "distill.alpha changed; old gone; new new"
    rows = parts(tmp_path / "a.json", '[{"text": "a"}, {"text": "b"}]')
    assert rows.changes(parts(tmp_path / "a.json", '[{"text": "a"}, {"text": "c"}]')) == "row 2 changed"


def test_rows_of_parquet_are_named(tmp_path: Path) -> None:
    found = []
    for texts in (["a", "b", "c"], ["a", "b", "x"]):
        pa.parquet.write_table(pa.table({"text": texts, "label": [0, 1, 0]}), tmp_path / "a.parquet")
        found.append(parts_of(tmp_path / "a.parquet"))
    assert found[0] and found[1] and found[0].changes(found[1]) == "row 3 changed"


def test_tensors_are_named_by_their_bytes_dtype_and_shape(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"head.bias": torch.tensor([1.0, 2.0]), "head.weight": torch.ones(2, 2)}, file, {"format": "pt"})
    before = parts_of(file)
    own = hashlib.sha256(b"F32[2]" + b"\x00\x00\x80?\x00\x00\x00@").hexdigest()[:8]  # 1.0 and 2.0, little endian
    assert before == Parts("tensor", (own, before.digests[1]), ("head.bias", "head.weight"))
    save_file({"head.bias": torch.tensor([1.0, 2.5]), "head.weight": torch.ones(4)}, file)
    after = parts_of(file)
    assert after and before.changes(after) == "head.bias, head.weight changed"


def test_other_files_have_none(tmp_path: Path) -> None:
    for name, content in (
        ("a.npy", b"x"),
        ("broken.json", b"{"),
        ("broken.safetensors", b"\xff" * 9),
        ("a.yaml", b"a"),
    ):
        (tmp_path / name).write_bytes(content)
        assert parts_of(tmp_path / name) is None, name
    (tmp_path / "large.json").write_text(json.dumps({str(i): "long" for i in range(9000)}))
    assert parts_of(tmp_path / "large.json") is None
