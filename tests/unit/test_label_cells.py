"""What a cell of a label column means in each format: names, sets of names, lists written as text, class ids, nothing."""

import csv
import io
import json
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from data_files import HEAD, loaded, rows

from mangakd.core.errors import UserError
from mangakd.data.sources import Files, Hub

LISTS = [
    ("['a', 'b']", ("a", "b")),
    ('["a"]', ("a",)),
    ("[1, 2]", ("1", "2")),
    ("[]", ()),
    ("['a' 'b']", ("a", "b")),
    ("[1.0, 2.5]", ("1", "2.5")),
    ("['it\\'s', \"b, c\"]", ("it's", "b, c")),
    ("['a', 'a']", ("a",)),
    ("['a'\n 'b']", ("a", "b")),
]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_lists_written_as_text(name: str, problem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = [(cell, names) for cell, names in LISTS if name != "a.tsv" or "\n" not in cell]
    if name == "a.parquet":
        pyarrow.parquet.write_table(
            pa.table({"text": ["x"] * len(cells), "label": [c for c, _ in cells]}), tmp_path / name
        )
        content: str | bytes = (tmp_path / name).read_bytes()
    elif name == "a.jsonl":
        content = "".join(json.dumps({"text": "x", "label": cell}) + "\n" for cell, _ in cells)
    else:
        quoted = [["text", "label"], *(["x", cell] for cell, _ in cells)]
        out = io.StringIO()
        csv.writer(out, delimiter="," if name == "a.csv" else "\t").writerows(quoted)
        content = out.getvalue()
    with caplog.at_level(logging.WARNING):
        read = rows(tmp_path, name, content, problem)
    assert read["label"] == [names for _, names in cells]
    filled = sum(bool(names) for _, names in cells)
    assert f"labels that are a list written as text, read as that list: {filled}; first:" in " ".join(caplog.messages)


# (name, cell, names in a multi-label task, a part of the warning); cells of JSONL are JSON
SEVERAL: list[tuple[str, str, tuple[str, ...], str]] = [
    ("a.csv", "a|b", ("a", "b"), ""),
    ("a.csv", "a | b|", ("a", "b"), ""),
    ("a.csv", "", (), ""),
    ("a.csv", "[]", (), ""),
    ("a.csv", "billing; refunds", ("billing; refunds",), ""),
    ("a.jsonl", '"billing | refunds"', ("billing | refunds",), "labels with | in them, each read as one name"),
    ("a.jsonl", '["billing | refunds", "b"]', ("billing | refunds", "b"), ""),
    ("a.jsonl", "[]", (), ""),
    ("a.jsonl", '"a"', ("a",), ""),
    ("a.jsonl", "[1, 2.0]", ("1", "2"), ""),
    ("a.csv", "set()", (), ""),
    ("a.csv", "()", (), ""),
    ("a.csv", "{}", (), ""),
    ("a.csv", "(don't know)", ("(don't know)",), ""),
    ("a.csv", "\"('a', 'b')\"", ("a", "b"), "labels that are a list written as text"),
]


@pytest.mark.parametrize(("name", "cell", "expected", "warning"), SEVERAL)
def test_sets_of_labels(
    name: str, cell: str, expected: tuple[str, ...], warning: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = f"{HEAD}x,{cell}\n" if name == "a.csv" else f'{{"text": "x", "label": {cell}}}'
    with caplog.at_level(logging.WARNING):
        assert rows(tmp_path, name, content, "multi_label")["label"] == [expected]
    assert warning in " ".join(caplog.messages) if warning else not caplog.messages


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", HEAD + "x,c\ny,a;b\nz,b\n", "line 3 of data.path="),
        ("a.csv", HEAD + 'x,c\ny,"a, b"\nz,"b,c"\n', "several labels in one cell: join them by |"),
        ("a.csv", HEAD + "x,{a,b}\n".replace("{a,b}", '"{a,b}"'), "a list that cannot be read"),
        ("a.csv", HEAD + "x,[other]\n", "a list that cannot be read"),
        ("a.csv", HEAD + "x,[0x10]\n", "a list that cannot be read"),
        ("a.csv", HEAD + "x,[007]\n", "a list that cannot be read"),
        ("a.csv", HEAD + "x,['don''t']\n", "a list that cannot be read"),
        ("a.csv", HEAD + f"x,[{'9' * 5000}]\n", "a list that cannot be read"),
        ("a.csv", HEAD + "x," + "[" * 100_000 + "]" * 100_000 + "\n", "a list that cannot be read"),
        ("a.jsonl", '{"text": "x", "label": [0, 1]}', "looks like a vector of 0 and 1; give names"),
        ("a.jsonl", '{"text": "x", "label": [true, false]}', "looks like a vector of 0 and 1; give names"),
        ("a.jsonl", '{"text": "x", "label": null}', "line 1 of"),
        ("a.jsonl", '{"text": "x", "label": NaN}', "has no label"),
        ("a.jsonl", '{"text": "x", "label": ["a"]}\n{"text": "x"}', "a row that has none of the labels holds []"),
        ("a.jsonl", '{"text": "x", "label": ""}', "has no label"),
    ],
)
def test_sets_of_labels_that_are_refused(name: str, content: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        rows(tmp_path, name, content, "multi_label")
    assert expected in str(raised.value)


def test_empty_sets_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.jsonl"
    labels: list[list[str]] = [[], ["a"], ["a", "b"]] * 10
    file.write_text("".join(json.dumps({"text": f"text {i}", "label": each}) + "\n" for i, each in enumerate(labels)))
    with caplog.at_level(logging.INFO):
        corpus = loaded(Files(path=str(file)), "multi_label")
    assert corpus.labels == ("a", "b") and () in corpus.train["label"]
    assert "10 of 30 rows have none of the labels" in " ".join(caplog.messages)
    with pytest.raises(UserError, match=r"line 1 of data.path=.* has no label \(and 9 more such rows\)"):
        loaded(Files(path=str(file)))


MISSING = {"null": None, "NaN": float("nan"), "empty": "", "blank": "  "}


@pytest.mark.parametrize("column", ["text", "label"])
@pytest.mark.parametrize("value", MISSING)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet", "a.feather", "a.arrow", "a.csv", "a.tsv"])
def test_missing_values(name: str, value: str, column: str, tmp_path: Path) -> None:
    objects: list[dict[str, Any]] = [{"text": f"x {i}", "label": "ab"[i % 2]} for i in range(30)]
    objects[4][column] = MISSING[value]
    file = tmp_path / name
    if file.suffix in (".csv", ".tsv"):
        separator = "," if file.suffix == ".csv" else "\t"
        lines = [separator.join("" if v != v or v is None else v for v in row.values()) for row in objects]
        file.write_text("\n".join([f"text{separator}label", *lines]) + "\n")
    elif file.suffix.startswith(".json"):
        lines = [json.dumps(row) for row in objects]
        file.write_text("\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]")
    else:
        if value == "NaN":  # Arrow has NaN in columns of numbers alone
            for i, row in enumerate(objects):
                row[column] = row[column] if i == 4 else float(i % 2)
        table = pa.table({key: [row[key] for row in objects] for key in ("text", "label")})
        write = {".parquet": pyarrow.parquet.write_table, ".feather": pyarrow.feather.write_feather}
        if file.suffix in write:
            write[file.suffix](table, str(file))
        else:
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
    place = {".csv": "line 6", ".tsv": "line 6", ".jsonl": "line 5", ".json": "entry 5"}.get(file.suffix, "row 5")
    with pytest.raises(UserError, match=rf"^{place} of data.path=.* has no {column}\. Fill or remove it"):
        loaded(Files(path=str(file)))


CLASSES = datasets.ClassLabel(names=["order", "refund"])
COLUMNS: dict[str, tuple[Any, list[tuple[str, ...]]]] = {
    "integers": (pa.array([1, 0, None]), [("1",), ("0",), ()]),
    "whole floats": (pa.array([1.0, 0.0, float("nan")]), [("1",), ("0",), ()]),
    "floats": (pa.array([0.5, 2.0, 1e20]), [("0.5",), ("2",), ("100000000000000000000",)]),
    "short floats": (pa.array([0.1, 2.0, None], pa.float32()), [("0.1",), ("2",), ()]),
    "decimals": (pa.array([Decimal("1.00"), Decimal("0.50"), None]), [("1",), ("0.50",), ()]),
    "booleans": (pa.array([True, False, None]), [("True",), ("False",), ()]),
    "dictionary": (pa.array(["a", "b", None]).dictionary_encode(), [("a",), ("b",), ()]),
    "large strings": (pa.array(["a|b", "b", None], pa.large_string()), [("a|b",), ("b",), ()]),
    "lists": (pa.array([["a", "b"], [], None]), [("a", "b"), (), ()]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_names_of_values_in_parquet(kind: str, tmp_path: Path) -> None:
    array, expected = COLUMNS[kind]
    pyarrow.parquet.write_table(pa.table({"text": ["x", "y", "z"], "label": array}), tmp_path / "a.parquet")
    assert Files(path=str(tmp_path / "a.parquet")).read()["train"]["label"] == expected


def test_numbers_in_json(tmp_path: Path) -> None:
    content = '[{"text": 5.0, "label": 1.0}, {"text": 0.5, "label": true}, {"text": 7, "label": 12}]'
    read = rows(tmp_path, "a.json", content)
    assert read["text"] == ["5", "0.5", "7"] and read["label"] == [("1",), ("True",), ("12",)]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("saved", ["parquet", "arrow", "feather", "a Dataset", "a DatasetDict"])
def test_names_of_classes_come_from_the_schema(saved: str, several: bool, tmp_path: Path) -> None:
    kind = datasets.Sequence(CLASSES) if several else CLASSES
    ids: list[Any] = [[1, 0], [], [0]] if several else [1, 0, -1]
    names = [("refund", "order"), (), ("order",)] if several else [("refund",), ("order",), ()]
    features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    made = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": ids}, features=features)
    folder = tmp_path / "saved"
    if saved.startswith("a "):
        (made if saved == "a Dataset" else datasets.DatasetDict(train=made)).save_to_disk(folder)
        read = Hub(path=str(folder)).read()
        with pytest.raises(UserError, match="a folder that datasets saved; read it with data=hub"):
            loaded(Files(path=str(folder)))
    else:
        file = tmp_path / f"a.{saved}"
        if saved == "parquet":
            made.to_parquet(file)
        elif saved == "feather":
            pyarrow.feather.write_feather(made.data.table, str(file))
        else:
            made.save_to_disk(folder)
            file = next(folder.glob("*.arrow"))
        read = Files(path=str(file)).read()
    assert list(read) == ["train"] and read["train"]["label"] == names


def test_class_ids_beside_nan(tmp_path: Path) -> None:
    schema = datasets.Features({"text": datasets.Value("string"), "label": CLASSES}).arrow_schema
    ids = pa.array([1.0, float("nan"), 0.0, None])
    table = pa.table({"text": ["x"] * 4, "label": ids}).replace_schema_metadata(schema.metadata)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert Files(path=str(tmp_path / "a.parquet")).read()["train"]["label"] == [("refund",), (), ("order",), ()]


def test_a_class_id_without_a_name(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": CLASSES})
    schema = features.arrow_schema
    pyarrow.parquet.write_table(pa.table({"text": ["x", "y"], "label": [0, 5]}, schema=schema), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 2 of data.path=.* holds the class id 5; the schema of the file names 2"):
        Files(path=str(tmp_path / "a.parquet")).read()


def test_bytes_that_are_no_text_in_parquet(tmp_path: Path) -> None:
    broken = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"text": broken, "label": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 2 of data.path=.* holds bytes in 'text' that are not UTF-8"):
        Files(path=str(tmp_path / "a.parquet")).read()
