"""What each kind of data file means: right texts, labels and lines, or a message that names the line and the cure.

Warnings are compared as well: what is read in one of two possible ways is said, with a count and the first line.
"""

import csv
import io
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from data_files import HEAD, loaded, rows

from mangakd.core.errors import UserError
from mangakd.data.sources import Files
from mangakd.data.tables import read_texts

TAB = "text\tlabel\n"


def written(table: Iterable[Iterable[Any]], **options: Any) -> str:
    """By csv.writer, with tabs."""
    out = io.StringIO()
    csv.writer(out, delimiter="\t", **options).writerows(table)
    return out.getvalue()


TABLE = [["text", "label"], ['he said "hi"', "a"], ["tab\there", "b"], ["plain", "c"]]
READ = [('he said "hi"', "a"), ("tab\there", "b"), ("plain", "c")]

# name, content, (text, label) of each row, a part of the warning
TEXT_FILES: dict[str, tuple[str, str, list[tuple[str, str]], str]] = {
    "csv: quotes inside unquoted cells": (
        "a.csv",
        HEAD + '5" screen,a\nsay "hi" now,b\n',
        [('5" screen', "a"), ('say "hi" now', "b")],
        "",
    ),
    "csv: doubled quotes": ("a.csv", HEAD + '"a ""b"", c",x\n', [('a "b", c', "x")], ""),
    "csv: quoted header": ("a.csv", '\ufeff"text","label"\n"a","x"\n', [("a", "x")], ""),
    "csv: blanks before quotes": ("a.csv", 'text, "label"\n"a, b", "x"\n', [("a, b", "x")], ""),
    "csv: CRLF and a line break in a cell": (
        "a.csv",
        'text,label\r\n"a\r\nb",x\r\nc,y\r\n',
        [("a\r\nb", "x"), ("c", "y")],
        "cells with line breaks (2 rows from 4 lines): 1; first: line 2, 'a\\r\\nb'",
    ),
    "csv: a text of several lines with commas": (
        "a.csv",
        HEAD + '"Hello,\nmy order, please\nbye",x\nc,y\n',
        [("Hello,\nmy order, please\nbye", "x"), ("c", "y")],
        "cells with line breaks (2 rows from 5 lines): 1; first: line 2",
    ),
    "csv: CR alone ends lines": ("a.csv", "text,label\ra,x\rb,y\r", [("a", "x"), ("b", "y")], ""),
    "csv: other breaks do not": ("a.csv", HEAD + "a\u2028b\x0cc,x\n", [("a\u2028b\x0cc", "x")], ""),
    "csv: blank lines": ("a.csv", "\n" + HEAD + "\na,x\n \nb,y\n\n", [("a", "x"), ("b", "y")], ""),
    "csv: backslashes are text": (
        "a.csv",
        HEAD + 'say \\"hi\\" there,x\nb,y\n',
        [('say \\"hi\\" there', "x"), ("b", "y")],
        "rows with a backslash escape, which is read as it is written: 1; first: line 2",
    ),
    "csv: a cell of 200 kB": ("a.csv", HEAD + "x" * 200_000 + ",y\n", [("x" * 200_000, "y")], ""),
    "csv: semicolons": ("a.csv", 'text;label\n"a; b";x\nc, d;y\n', [("a; b", "x"), ("c, d", "y")], ""),
    "csv: pipes": ("a.csv", "text|label\na, b|x\n", [("a, b", "x")], ""),
    "csv: tabs": ("a.csv", TAB + "a, b\tx\n", [("a, b", "x")], ""),
    "csv: Excel's line of the separator": ("a.csv", "sep=;\r\ntext;label\r\na;x\r\n", [("a", "x")], ""),
    "csv: words for a missing value": (
        "a.csv",
        HEAD + "NA,null\nx,None\n",
        [("NA", "null"), ("x", "None")],
        "labels that are a word for a missing value, read as they are written: 2; first: line 2, 'null'",
    ),
    "csv: numbers stay as written": ("a.csv", HEAD + "1.0,0.0\n007,1e3\n", [("1.0", "0.0"), ("007", "1e3")], ""),
    "csv: blanks around a label": (
        "a.csv",
        "text, label\na, x\n",
        [("a", "x")],
        "labels with blanks around them, which are left out: 1; first: line 2, ' x'",
    ),
    "csv: blanks and capitals in names": ("a.csv", "Text , LABEL\na,x\n", [("a", "x")], ""),
    "csv: pipe in a single label": (
        "a.csv",
        HEAD + "a,x | y\n",
        [("a", "x | y")],
        "labels with | in them, each read as one name (for several labels: task.problem=multi_label): 1; first: line 2",
    ),
    "csv: a name in brackets": ("a.csv", HEAD + "a,[other]\nb,(none)\n", [("a", "[other]"), ("b", "(none)")], ""),
    "tsv: unclosed quotes": (
        "a.tsv",
        TAB + '"a\tx\nb\ty\n"c\tx\n',
        [('"a', "x"), ("b", "y"), ('"c', "x")],
        "rows with a cell that begins with a quote, which is read as a part of it: 2; first: line 2, '\"a'",
    ),
    "tsv: quotations": (
        "a.tsv",
        TAB + '"Hello" he said\tx\n"quoted"\ty\n',
        [('"Hello" he said', "x"), ('"quoted"', "y")],
        "line 2, '\"Hello\" he said'",
    ),
    "tsv: quotes that close in a later row": (
        "a.tsv",
        TAB + '"a\tx\nb\ty\nc"\tx\n',
        [('"a', "x"), ("b", "y"), ('c"', "x")],
        "begins with a quote",
    ),
    "tsv: csv.writer, line breaks": (
        "a.tsv",
        written([["text", "label"], ["a\nb", "x"], ["c", "y"]]),
        [("a\nb", "x"), ("c", "y")],
        "cells with line breaks (2 rows from 4 lines): 1; first: line 2",
    ),
    "tsv: quotes inside": ("a.tsv", TAB + 'a 5" screen\tx\n', [('a 5" screen', "x")], ""),
    "tsv: csv.writer": ("a.tsv", written(TABLE), READ, ""),
    "tsv: csv.writer, all quoted": ("a.tsv", written(TABLE, quoting=csv.QUOTE_ALL), READ, ""),
    "tsv: csv.writer, text quoted": (
        "a.tsv",
        written([["text", "label"], ["a", 1], ["b", 2]], quoting=csv.QUOTE_NONNUMERIC),
        [("a", "1"), ("b", "2")],
        "",
    ),
    "tsv: Excel": ("a.tsv", TAB + '"Hello, you"\tx\n"say ""a"""\ty\n', [("Hello, you", "x"), ('say "a"', "y")], ""),
    "tsv: commas": ("a.tsv", 'text,label\n"a, ""b""",x\n', [('a, "b"', "x")], ""),
}


@pytest.mark.parametrize("kind", TEXT_FILES)
def test_text_file(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, content, expected, warning = TEXT_FILES[kind]
    with caplog.at_level(logging.WARNING):
        read = rows(tmp_path, name, content)
    assert list(zip(read["text"], (label for (label,) in read["label"]), strict=True)) == expected
    assert warning in " ".join(caplog.messages) if warning else not caplog.messages


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.txt"])
def test_unicode_encodings(encoding: str, name: str, tmp_path: Path) -> None:
    text, file = "注文は 5 € — “é”", tmp_path / name
    content = {
        ".csv": f'text,label\r\n"{text}",x\r\n',
        ".tsv": f"text\tlabel\n{text}\tx\n",
        ".json": json.dumps([{"text": text, "label": "x"}], ensure_ascii=False),
        ".jsonl": json.dumps({"text": text, "label": "x"}, ensure_ascii=False) + "\n",
        ".txt": f"a line\n{text}\n",
    }[file.suffix]
    file.write_bytes(content.encode(encoding))
    assert read_texts(str(file), "text", "texts", "text_column")[-1] == text
    if file.suffix != ".txt":
        assert Files(path=str(file)).read()["train"]["label"] == [("x",)]


@pytest.mark.parametrize(
    ("header", "options", "expected"),
    [
        ("q,intent", {"text_column": 0, "label_column": 1}, "t"),
        ("q,intent", {"text_column": "0", "label_column": "intent"}, "t"),
        ("1,0", {"text_column": 0, "label_column": 1}, "x"),  # names win over positions
        ("q,intent", {"text_column": "Q", "label_column": "Intent "}, "t"),
    ],
)
def test_columns_by_name_or_position(
    header: str, options: dict[str, Any], expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert rows(tmp_path, "a.csv", f"{header}\nt,x\n", **options)["text"] == [expected]
    by_position = header == "q,intent" and options["text_column"] in (0, "0")
    assert ("the first line ('q, intent') is taken for the header" in " ".join(caplog.messages)) == by_position


def test_lone_surrogates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def write(label: str) -> Files:
        objects = [f'{{"text": "x {i}", "label": "{"ab"[i % 2]}"}}' for i in range(30)]
        objects[6] = f'{{"text": "thanks \\ud83d", "label": "{label}"}}'
        (tmp_path / "a.jsonl").write_text("\n".join(objects))
        return Files(path=str(tmp_path / "a.jsonl"))

    with caplog.at_level(logging.WARNING):
        corpus = write("a").load()
    assert "thanks \ufffd" in [text for part in corpus.splits.values() for text in part["text"]]
    assert "texts with half a surrogate pair, which is replaced by U+FFFD: 1; first: line 7" in " ".join(
        caplog.messages
    )
    with pytest.raises(UserError, match=r"line 7 of data.path=.* has a label with half a surrogate pair in it"):
        write("a\\udc00").load()


def test_labels_that_look_alike_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["caf\u00e9", "cafe\u0301"]
    (tmp_path / "a.csv").write_text(HEAD + "".join(f"x {i},{names[i % 2]}\n" for i in range(30)))
    with caplog.at_level(logging.WARNING):
        loaded(Files(path=str(tmp_path / "a.csv")))
    assert r"the labels 'cafe\u0301' and 'caf\xe9' look alike and are two classes" in " ".join(caplog.messages)


def test_unlabelled_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines, table = tmp_path / "a.txt", tmp_path / "a.jsonl"
    lines.write_text(" one\n\ntwo\u2028three\x0c\n")
    table.write_text('{"text": NaN}\n{"text": " one"}\n{"text": null}\n{"text": 2.0}\n')
    with caplog.at_level(logging.INFO):
        assert read_texts(str(lines), "text", "texts", "text_column") == [" one", "two\u2028three\x0c"]
        assert read_texts(str(table), "text", "texts", "text_column") == [" one", "2"]
    assert "2 of 4 rows have no text and are left out" in " ".join(caplog.messages)
