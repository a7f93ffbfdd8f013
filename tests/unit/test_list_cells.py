"""Columns of lists, as a ranking task reads them: documents and grades of a query, from every kind of file."""

import csv
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from mangakd.core.errors import UserError
from mangakd.data.rows import Columns, Rows, identities, inputs
from mangakd.data.source import Corpus, Source
from mangakd.data.sources import Files, MangaIntent

RANKED: Columns = {"query": "text", "documents": "texts", "grades": "numbers"}
Objects = list[dict[str, Any]]


def groups(count: int = 20) -> Objects:
    """Groups of 1 to 3 documents."""
    return [
        {"query": f"query {i}", "documents": [f"document {i}, {j}" for j in range(1 + i % 3)], "grades": [0.5, 0, 2][: 1 + i % 3]}
        for i in range(count)
    ]  # fmt: skip


def write_csv(file: Path, rows: Objects) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows([value if isinstance(value, str) else json.dumps(value) for value in row.values()] for row in rows)
    file.write_text(text.getvalue())


def write_tsv(file: Path, rows: Objects) -> None:
    lines = [[value if isinstance(value, str) else json.dumps(value) for value in row.values()] for row in rows]
    file.write_text("\n".join(map("\t".join, [[*rows[0]], *lines])))


def write_table(file: Path, rows: Objects) -> None:
    short = pa.schema(
        [("query", pa.string()), ("documents", pa.list_(pa.string())), ("grades", pa.large_list(pa.float32()))]
    )
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, short), file)


WRITERS: dict[str, Callable[[Path, Objects], object]] = {
    ".jsonl": lambda file, rows: file.write_text("\n".join(map(json.dumps, rows))),
    ".json": lambda file, rows: file.write_text(json.dumps(rows)),
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".parquet": write_table,
}  # fmt: skip


def corpus(tmp_path: Path, rows: Objects, ending: str = ".jsonl", **options: Any) -> Corpus:
    file = tmp_path / f"a{ending}"
    WRITERS[ending](file, rows)
    return Files(path=str(file), **options).load(RANKED)


@pytest.mark.parametrize("ending", WRITERS)
def test_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    read = corpus(tmp_path, groups(), ending)
    rows = sorted(
        (query, documents, grades)
        for part in read.splits.values()
        for query, documents, grades in zip(part["query"], part["documents"], part["grades"], strict=True)
    )
    wanted = sorted((r["query"], tuple(r["documents"]), tuple(r["grades"])) for r in groups())
    assert rows == wanted and all(type(grade) is float for _, _, grades in rows for grade in grades)


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("documents", "one", r"line 4 of data\.path=.*holds 'one', not a list of texts .*or set data\.columns\.documents"),
        ("documents", {"a": 1}, r"line 4 .*holds .*not a list of texts"),
        ("documents", [["one"]], r"line 4 .*holds a list, not a list of texts"),
        ("documents", None, r"line 4 of .* has no documents \(and 1 more such row\)"),
        ("documents", [], "line 4 of .* has no documents"),
        ("documents", ["one", " "], r"line 4 of .* has no text at place 2 of its documents .*set data\.columns\.documents"),
        ("documents", [None], "line 4 of .* has no text at place 1 of its documents"),
        ("grades", [1, float("inf")], "line 4 of .*holds 'inf', not a list of finite numbers"),
        ("grades", [True], r"line 4 of .*holds 'True', not a list .*set data\.columns\.grades"),
        ("grades", ["high"], "line 4 of .*holds 'high', not a list of finite numbers"),
        ("grades", 1, "line 4 of .*holds '1', not a list of finite numbers"),
    ],
)  # fmt: skip
def test_what_is_no_list(column: str, cell: Any, expected: str, tmp_path: Path) -> None:
    rows = groups()
    rows[3][column] = cell
    rows[8][column] = []
    with pytest.raises(UserError, match=expected):
        corpus(tmp_path, rows)


@pytest.mark.parametrize("cell", ["one, two", '["one", "two"', "['one']", '{"one": 2}', "3"])
def test_what_is_no_list_in_csv(cell: str, tmp_path: Path) -> None:
    rows = groups()
    rows[3]["documents"] = cell
    with pytest.raises(UserError, match=r"line 5 of data\.path=.*a\.csv holds .*not a list of texts .*in JSON\)"):
        corpus(tmp_path, rows, ".csv")


def test_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"q": r["query"], "candidates": r["documents"], "grades": r["grades"]} for r in groups()]
    assert len(corpus(tmp_path, rows, columns={"query": "q", "documents": "candidates"}).train) == 16
    with pytest.raises(UserError, match=r"has no column 'documents'.* Set data\.columns\.documents"):
        corpus(tmp_path, rows, columns={"query": "q"})


def test_rows_of_a_query_stay_on_one_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert inputs(RANKED) == ["query", "documents"]
    rows = groups() + [{**r, "documents": ["another"], "grades": [0]} for r in groups()]
    parts = corpus(tmp_path, rows).splits
    queries = {name: set(part["query"]) for name, part in parts.items()}
    assert sum(map(len, queries.values())) == 20 and all(len(part) == 2 * len(queries[n]) for n, part in parts.items())
    held_out = tmp_path / "test.jsonl"
    held_out.write_text(json.dumps({"query": "query  3", "documents": ["new"], "grades": [1]}))
    with caplog.at_level(logging.WARNING):
        corpus(tmp_path, groups(), test_path=str(held_out))
    assert "texts that train has, too" in caplog.text and "query  3" in caplog.text


def test_lists_alone_tell_rows_apart() -> None:
    rows = Rows({"texts": [("a", "b"), ("a", "b"), ("ab",)]})
    assert [*identities(rows, {"texts": "texts"})] == ["a\0b", "a\0b", "ab"]


def test_documents_twice_and_words_for_missing_values_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = groups()
    rows[4] |= {"documents": ["one", "one "], "grades": [1, 0]}
    rows[5] |= {"documents": ["NA", "one\ud83d"], "grades": [1, 0]}
    with caplog.at_level(logging.WARNING):
        read = corpus(tmp_path, rows)
    assert "texts that are more than once in the documents of a row: 1; first: line 5, 'one'" in caplog.text
    assert "a word for a missing value, read as they are written: 1; first: line 6, 'NA'" in caplog.text
    assert "half a surrogate pair" in caplog.text
    assert ("NA", "one\ufffd") in [cell for part in read.splits.values() for cell in part["documents"]]


def test_rows_lose_their_grades_and_keep_their_documents(tmp_path: Path) -> None:
    read = corpus(tmp_path, groups(), labelled_share=0.5)
    assert (
        len(read.train) == 8 and list(read.unlabelled.columns) == ["query", "documents"] and len(read.unlabelled) == 8
    )
    assert read.digest("train") != corpus(tmp_path, groups()).digest("train")


def test_a_source_of_texts_alone_is_refused() -> None:
    source: Source = MangaIntent()
    with pytest.raises(UserError, match=r"has no column 'query' of kind text"):
        source.load(RANKED)
