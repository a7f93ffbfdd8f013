"""Data sources: every file kind gives the same rows, and every mistake in data is told with file, row and key."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from data_files import loaded

from mangakd.core.errors import UserError
from mangakd.data.source import Corpus
from mangakd.data.sources import Clinc150, Files, Hub, MangaIntent

LABELS = ("order", "refund", "shipping")
TEXTS = [f'the "{label}", number {i} — é' for i in range(12) for label in LABELS]
NAMES = [label for _ in range(12) for label in LABELS]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, NAMES, strict=True)]


def table() -> pa.Table:
    return pa.table({"text": TEXTS, "label": NAMES, "score": [0.5] * len(TEXTS)})


def csv(separator: str = ",", line: str = "\n", head: str = "text{}label") -> str:
    quoted = ['"' + row["text"].replace('"', '""') + '"' + separator + row["label"] for row in ROWS]
    return line.join([head.format(separator), *quoted]) + line


def arrow_file(file: Path) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table().schema) as writer:
        writer.write_table(table())


def arrow_stream(file: Path) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table().schema) as writer:
        writer.write_table(table())


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "csv": ("a.csv", lambda f: f.write_text(csv())),
    "csv, byte order mark": ("a.csv", lambda f: f.write_text(csv(), encoding="utf-8-sig")),
    "csv, CRLF": ("a.csv", lambda f: f.write_bytes(csv(line="\r\n").encode())),
    "csv, upper-case ending": ("A.CSV", lambda f: f.write_text(csv())),
    "tsv": ("a.tsv", lambda f: f.write_text(csv("\t"))),
    "json": ("a.json", lambda f: f.write_text(json.dumps(ROWS))),
    "json, byte order mark": ("a.json", lambda f: f.write_text(json.dumps(ROWS), encoding="utf-8-sig")),
    "jsonl": ("a.jsonl", lambda f: f.write_text("\n".join(json.dumps(row) for row in ROWS))),
    "jsonl, blank lines": ("a.jsonl", lambda f: f.write_text("\n\n".join(json.dumps(row) for row in ROWS) + "\n\n")),
    "ndjson, CRLF": ("a.ndjson", lambda f: f.write_bytes("\r\n".join(json.dumps(row) for row in ROWS).encode())),
    "arrow file": ("a.arrow", arrow_file),
    "arrow stream": ("a.arrow", arrow_stream),
    "feather": ("a.feather", lambda f: pyarrow.feather.write_feather(table(), str(f))),
    "parquet": ("a.parquet", lambda f: pyarrow.parquet.write_table(table(), f)),
    "parquet, dictionary of labels": (
        "a.parquet",
        lambda f: pyarrow.parquet.write_table(table().set_column(1, "label", pa.array(NAMES).dictionary_encode()), f),
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    write(tmp_path / name)
    rows = Files(path=str(tmp_path / name)).read()["train"]
    assert rows["text"] == TEXTS
    assert rows["label"] == [(name,) for name in NAMES]


def write(tmp_path: Path, name: str, content: str | bytes) -> str:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def load(tmp_path: Path, **options: Any) -> Corpus:
    return loaded(Files(**{"path": write(tmp_path, "good.csv", csv()), **options}))


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("a.json", [3, 0, 3], [("3",), ("0",), ("3",)]),
        ("a.json", [3, "three", None], [("3",), ("three",), ()]),
        ("a.json", [["a", "b"], ["a"], []], [("a", "b"), ("a",), ()]),
        ("a.json", ["a|b", " a ", "a|a|"], [("a|b",), ("a",), ("a|a|",)]),
        ("a.csv", ["007", "NA", "true"], [("007",), ("NA",), ("true",)]),
        ("a.parquet", [1, None, 2], [("1",), (), ("2",)]),
        ("a.parquet", [float("nan"), 1.5, 2.0], [(), ("1.5",), ("2",)]),
    ],
)
def test_label_cells(name: str, cells: list[Any], expected: list[tuple[str, ...]], tmp_path: Path) -> None:
    file = tmp_path / name
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"text": ["x"] * 3, "label": cells}), file)
    elif file.suffix == ".csv":
        file.write_text("text,label\n" + "".join(f"x,{cell}\n" for cell in cells))
    else:
        file.write_text(json.dumps([{"text": "x", "label": cell} for cell in cells]))
    assert Files(path=str(file)).read()["train"]["label"] == expected


LINE = '{"text": "where is it", "label": "order"}\n'
BAD_FILES: dict[str, tuple[str, str | bytes, list[str]]] = {
    "empty": ("a.csv", "", ["a.csv is empty (0 bytes)"]),
    "only line ends": ("a.csv", "\n\n", ["data.path=", "has no rows, only blank lines"]),
    "header without rows": ("a.csv", "text,label\n", ["a.csv has no rows", "data.path"]),
    "too few rows to split": (
        "a.csv",
        "text,label\na,b\nc,d\n",
        ["has 2 rows, too few", "data.val_path and data.test_path"],
    ),
    "no such column": (
        "a.csv",
        "txt,label\na,b\n",
        ["no column 'text'", "it has txt, label", "data.text_column", "txt?"],
    ),
    "no label column": ("a.csv", "text,intent\na,b\n", ["no column 'label'", "data.label_column"]),
    "a column twice": ("a.csv", "text,label,text\na,b,c\n", ["2 columns 'text'", "rename all but one"]),
    "three cells": (
        "a.csv",
        "text,label\na,b\nc, d,e\n",
        ["line 3 has 3 cells separated by ','", "the header has 2 (text, label)"],
    ),
    "latin-1 csv": ("a.csv", csv().encode("utf-8").replace(b"\xc3\xa9", b"\xe9"), ["not UTF-8", "iconv"]),
    "latin-1 json": ("a.json", b'[{"text": "\xe9"}]', ["not UTF-8", "iconv"]),
    "latin-1 jsonl": ("a.jsonl", b'{"text": "\xe9"}', ["not UTF-8", "iconv"]),
    "no text": (
        "a.csv",
        csv() + ",order\n  ,order\n",
        ["line 38 of data.path=", "no text (and 1 more such row)", "data.text_column"],
    ),
    "no label": ("a.csv", csv() + "hello,\n", ["line 38 of data.path=", "has no label", "data.label_column"]),
    "null text": ("a.jsonl", LINE + '{"text": null, "label": "order"}', ["line 2 of data.path=", "has no text"]),
    "key missing from a row": ("a.jsonl", LINE + '{"text": "x"}', ["line 2 of data.path=", "has no label"]),
    "text that is an object": (
        "a.jsonl",
        LINE + '{"text": {"a": 1}, "label": "b"}',
        ["line 2 of data.path=", "holds a dict, not a text", "data.text_column"],
    ),
    "label that is an object": (
        "a.jsonl",
        LINE + '{"text": "x", "label": {}}',
        ["line 2 of data.path=", "holds a dict. A label is a name or a list of names", "data.label_column"],
    ),
    "json that is no list": (
        "a.json",
        '{"data": []}',
        ["must be a JSON list of objects", "an object with the keys data"],
    ),
    "json list of texts": ("a.json", '["a", "b"]', ["entry 1 must be an object", "found 'a'"]),
    "json list of nothing": ("a.json", "[]", ["has no rows"]),
    "json cut short": ("a.json", '[{"text"', ["is not JSON", "line 1 column 9"]),
    "jsonl called json": ("a.json", LINE * 2, ["is not JSON", "Is it JSONL?"]),
    "jsonl cut short": ("a.jsonl", LINE + '{"te', ["line 2 is not JSON"]),
    "jsonl of lists": ("a.jsonl", "[1]", ["line 1 must be an object"]),
    "unknown ending": ("a.xlsx", "x", ["unknown ending '.xlsx'", ".csv .tsv .json"]),
    "no parquet": ("a.parquet", "not parquet", ["could not be read as .parquet"]),
    "no arrow": ("a.arrow", "not arrow at all", ["could not be read as .arrow"]),
    "one class": ("a.csv", "text,label\n" + "x,order\n" * 20, ["single class (order)", "data.label_column"]),
}


@pytest.mark.parametrize("mistake", BAD_FILES)
def test_bad_training_file(mistake: str, tmp_path: Path) -> None:
    name, content, expected = BAD_FILES[mistake]
    with pytest.raises(UserError) as raised:
        loaded(Files(path=write(tmp_path, name, content)))
    message = str(raised.value)
    assert name in message or "class" in message
    assert all(part in message for part in expected), message


BAD_OPTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no path": ({"path": None}, ["data.path is not set"]),
    "no such file": ({"path": "{}/godo.csv"}, ["data.path=", "no such file; did you mean good.csv?"]),
    "no such folder": ({"path": "{}/nowhere/a.csv"}, ["nowhere does not exist"]),
    "a folder": ({"path": "{}"}, ["is a folder, not a file; it holds good.csv"]),
    "no test file": ({"test_path": "{}/test.csv"}, ["data.test_path=", "no such file"]),
    "limit 0": ({"train_limit": 0}, ["data.train_limit=0 must be a whole number from 1 on"]),
    "limit below 0": ({"val_limit": -1}, ["data.val_limit=-1"]),
    "limit that is no number": ({"test_limit": "all"}, ["data.test_limit=all", "null for all rows"]),
    "one column for both": ({"label_column": "text"}, ["are both 'text'"]),
}


@pytest.mark.parametrize("mistake", BAD_OPTIONS)
def test_bad_options(mistake: str, tmp_path: Path) -> None:
    options, expected = BAD_OPTIONS[mistake]
    with pytest.raises(UserError) as raised:
        load(tmp_path, **{key: v.format(tmp_path) if isinstance(v, str) else v for key, v in options.items()})
    assert all(part in str(raised.value) for part in expected), str(raised.value)


def test_a_label_that_train_lacks_names_row_and_counts(tmp_path: Path) -> None:
    test = write(tmp_path, "test.csv", "text,label\nx,order\ny,shiping\nz,gift\n")
    with pytest.raises(UserError) as raised:
        load(tmp_path, test_path=test)
    message = str(raised.value)
    assert f"line 3 of data.test_path={test} (test) has the label 'shiping'" in message
    assert "(and 1 more such row); did you mean shipping?" in message
    assert "train has 3 classes, all splits together 5; missing from train: gift, shiping" in message


def test_a_limit_that_loses_a_class_says_which(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train has 20 rows, none of them of .*; add rows, or raise data.train_limit"):
        loaded(MangaIntent(train_limit=20, val_limit=5, test_limit=5))


def test_splits_do_not_overlap_and_do_not_follow_the_limits(tmp_path: Path) -> None:
    corpus, limited = load(tmp_path), load(tmp_path, train_limit=10)
    parts = [set(rows["text"]) for rows in corpus.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(TEXTS)
    assert limited.test == corpus.test
    assert len(limited.train) == 10
    assert set(limited.train["text"]) < set(corpus.train["text"])


def test_what_a_source_does_not_read_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        MangaIntent(columns={})._warn_ignored()
        assert not caplog.messages  # as conf/data/_base.yaml sets it
        MangaIntent(path="mine.csv", label_column="intent")._warn_ignored()
    told = " ".join(caplog.messages)
    assert "data.path=mine.csv is ignored" in told and "data.label_column=intent is ignored" in told
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load(tmp_path, val_path=write(tmp_path, "val.csv", csv().replace("number", "no.")), text_column="text")
    assert not caplog.messages


CLINC = {"train": [["hi", "a"], ["yo", "b"]], "val": [["hi", "a"]], "test": [["yo", "b"]], "oos_test": [["?", "oos"]]}


def test_clinc150_as_published(tmp_path: Path) -> None:
    corpus = loaded(Clinc150(path=write(tmp_path, "data_full.json", json.dumps(CLINC))))
    assert corpus.labels == ("a", "b")
    assert corpus.test["text"] == ["yo"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "must hold train, val, test; found list"),
        ({"train": []}, "must hold train, val, test; found train"),
        ({**CLINC, "train": [["hi"]]}, "train must be a list of [text, intent]"),
        ({**CLINC, "val": [[1, 2]]}, "val must be a list of [text, intent]"),
    ],
)
def test_a_file_that_is_not_clinc150(content: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        loaded(Clinc150(path=write(tmp_path, "data_full.json", json.dumps(content))))
    assert expected in str(raised.value)


def test_hub_reads_class_names_and_refuses_withheld_labels(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(LABELS))})

    def split(labels: list[int]) -> Any:
        return datasets.Dataset.from_dict({"text": ["x"] * len(labels), "label": labels}, features=features)

    datasets.DatasetDict(train=split([0, 1, 2] * 4), dev=split([1]), test=split([-1])).save_to_disk(tmp_path / "set")
    rows = Hub(path=str(tmp_path / "set")).read()
    assert rows["train"]["label"][:3] == [("order",), ("refund",), ("shipping",)]
    assert rows["validation"]["label"] == [("refund",)]
    with pytest.raises(UserError, match=r"row 1 of .*:test has no label"):
        loaded(Hub(path=str(tmp_path / "set")))
    with pytest.raises(UserError, match=r"data.path=no/such could not be loaded from the hub"):
        loaded(Hub(path="no/such"))
