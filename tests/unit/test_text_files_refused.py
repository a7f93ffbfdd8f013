"""What a data file may not hold: the message names the line and the cure."""

from pathlib import Path
from typing import Any

import pytest
from data_files import HEAD, rows

from mangakd.core.errors import UserError

TAB = "text\tlabel\n"

REFUSED: dict[str, tuple[str, str | bytes, list[str]]] = {
    "csv: unclosed quote": (
        "a.csv",
        HEAD + 'a,x\n"b,y\nc,z\n',
        ["line 3 opens a cell with a quote that is never closed"],
    ),
    "csv: text after a quote": (
        "a.csv",
        HEAD + 'c,x\n"b" is,y\n',
        ["line 3 opens a cell with a quote", "text follows", "JSONL"],
    ),
    "csv: a quote in a later row": (
        "a.csv",
        HEAD + '"a,x\nb,y\n"c,x\n',
        ["line 2 opens a cell with a quote, and in line 4 text"],
    ),
    "csv: a quote closed by a later row": (
        "a.csv",
        HEAD + 'a,x\n"b,y\nc,x\nd",y\n',
        ["quote that opens a cell in line 3 is closed too late", "'b,y', which looks like a row"],
    ),
    "csv: backslash escapes": (
        "a.csv",
        HEAD + '"say \\"so\\" , a",x\n',
        ["line 2 escapes quotes by a backslash", 'twice ("")', "sed "],
    ),
    "csv: backslash before a separator": (
        "a.csv",
        HEAD + "a\\, b,x\n",
        ["line 2 has 3 cells separated by ','", "does not protect it"],
    ),
    "csv: a row in two lines": (
        "a.csv",
        HEAD + "a\nb,x\n",
        ["line 2 has 1 cell", "Perhaps a text goes on in the next line"],
    ),
    "tsv: a tab too many": ("a.tsv", TAB + "a\tb\tx\n", ["line 2 has 3 cells separated by a tab", "Replace tabs"]),
    "tsv: a row in two lines": ("a.tsv", TAB + "b\tx\na\nb\tx\n", ["line 3 has 1 cell"]),
    "csv: no header": (
        "a.csv",
        "where is it,order\ngive back,refund\n",
        ["no column 'text'; it has where is it, order", "header line"],
    ),
    "csv: a column that is not there": (
        "a.csv",
        "q,intent\na,x\n",
        ["no column 'text'; it has q, intent", "data.text_column"],
    ),
    "zero bytes": ("a.csv", b"text,label\na\0b,x\n", ["line 2 holds a zero byte", "Save it as UTF-8"]),
    "infinity": ("a.jsonl", '{"text": Infinity, "label": "a"}', ["line 1 of data.path=", "holds inf"]),
    "list with null": (
        "a.jsonl",
        '{"text": "x", "label": ["a", null]}',
        ["line 1 of", "a list with a missing value in it"],
    ),
    "list with NaN": (
        "a.jsonl",
        '{"text": "x", "label": ["a", NaN]}',
        ["line 1 of", "a list with a missing value in it"],
    ),
    "jsonl: a key twice": (
        "a.jsonl",
        '{"text": "x", "label": "a"}\n{"text": "y", "text": "z", "label": "a"}\n',
        ["line 2 is not JSON: An object has the key 'text' twice"],
    ),
    "json: a key twice": (
        "a.json",
        '[{"text": "x", "label": "a"},\n{"text": "y", "text": "z", "label": "a"}]',
        ["An object has the key 'text' twice: line 2 column 1", "Fix that place"],
    ),
    "jsonl: 5,000 digits": ("a.jsonl", '{"text": "x", "label": ' + "9" * 5000 + "}", ["line 1", "over 4300 digits"]),
    "json: deep": ("a.json", "[" * 100_000 + "]" * 100_000, ["nested too deeply"]),
    "list of lists": ("a.json", '[{"text": "x", "label": [["a"]]}]', ["entry 1 of", "holds a list. A label is"]),
    "vector of 0 and 1": (
        "a.jsonl",
        '{"text": "x", "label": [0, 1, 0]}',
        ["line 1 of", "looks like a vector of 0 and 1; give names"],
    ),
    "text of a list that is cut": ("a.csv", HEAD + "\"x\",['a'\n", ["line 2 of", "a list that cannot be read"]),
    "text of numpy's strings": ("a.csv", HEAD + "x,[np.str_('a')]\n", ["line 2 of", "a list that cannot be read"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, tmp_path: Path) -> None:
    name, content, expected = REFUSED[kind]
    with pytest.raises(UserError) as raised:
        rows(tmp_path, name, content)
    assert all(part in str(raised.value) for part in expected), str(raised.value)


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("q,intent\nt,x\n", {"text_column": 2}, "no column '2'; it has q, intent. Set data.text_column"),
        ("where,order\nback,refund\nlate,order\n", {"text_column": 0, "label_column": 1}, "'order' is also a label"),
        ("Text,TEXT,label\na,b,x\n", {}, "no column 'text'; it has Text, TEXT, label"),
        ("' text,intent \na,x\n", {"text_column": "txt"}, "it has ' text, 'intent '"),
    ],
)
def test_columns_that_are_refused(content: str, options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        rows(tmp_path, "a.csv", content, **options)
    assert expected in str(raised.value)
