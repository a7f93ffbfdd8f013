"""Quotes, backslashes and line breaks in CSV: where a cell ends, and cures that can be typed."""

import logging
import subprocess
from pathlib import Path

import pytest
from data_files import HEAD, rows

from mangakd.core.errors import UserError


@pytest.mark.parametrize("separator", [",", ";"])
def test_the_cure_of_backslash_escapes(separator: str, tmp_path: Path) -> None:
    content = (HEAD + '"say \\"so\\" , a; b in C:\\temp",x\n').replace("text,label", f"text{separator}label")
    content = content.replace(",x\n", f"{separator}x\n")
    with pytest.raises(UserError) as raised:
        rows(tmp_path, "old.csv", content)
    command = str(raised.value).split("Rewrite the file: ")[1]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert rows(tmp_path, "a.csv", (tmp_path / "new.csv").read_bytes())["text"] == ['say "so" , a; b in C:\\temp']


READ = {
    "a blank before each quote": ('a, "say hello"\n"b, c", "x"\n', [("a", "say hello"), ("b, c", "x")], ""),
    "a blank after each separator": ('a, "x, y"\nb, z\n', [("a", "x, y"), ("b", "z")], ""),
    "text and blanks in quotes": ('"a, ""b""",x\n c,y\n', [('a, "b"', "x"), (" c", "y")], ""),
    "quotes that do not close the cell": (
        'a, "x" y\nb,z\n',
        [("a", '"x" y'), ("b", "z")],
        "cells with a blank before the quote, which is therefore read as a part of it: 1; first: line 2",
    ),
    "a line that is a text elsewhere": (
        '"Hi,\nwhere is it",order\nwhere is it,order\nHi,refund\n',
        [("Hi,\nwhere is it", "order"), ("where is it", "order"), ("Hi", "refund")],
        "cells with line breaks",
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_cells(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, expected, warning = READ[kind]
    with caplog.at_level(logging.WARNING):
        read = rows(tmp_path, "a.csv", HEAD + content)
    assert [(text, *labels) for text, labels in zip(read["text"], read["label"], strict=True)] == expected
    assert warning in " ".join(caplog.messages)


def test_a_quoted_header_with_another_separator(tmp_path: Path) -> None:
    options = {"text_column": "text, body"}
    assert rows(tmp_path, "a.csv", '"text, body";label\na, b;x\n', **options)["text"] == ["a, b"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('text,label\na, "b, c"\nd, e\nf,g\n', "There is a blank before a quote, so that the quote opens no cell"),
        ("text^label\na^x\n", "Is '^' its separator?"),
        ("# made by hand\ntext,label\na,x\n", "line 1 ('# made by hand') looks like a comment"),
    ],
)
def test_refused(content: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        rows(tmp_path, "a.csv", content)
    assert expected in str(raised.value)
