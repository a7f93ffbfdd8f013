"""Columns of numbers, as a task of scores reads them: what is a number, and what is told about the other cells."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from mangakd.core.errors import UserError
from mangakd.data.rows import Columns
from mangakd.data.source import Corpus
from mangakd.data.sources import Files, MangaIntent

SCORED: Columns = {"text": "text", "score": "number"}


def corpus(file: Path, content: str, **options: Any) -> Corpus:
    file.write_text(content)
    return Files(path=str(file), **options).load(SCORED)


def csv(cell: str) -> str:
    return "text,score\n" + "".join(f"text {i},{i % 4}\n" for i in range(20)) + f"odd,{cell}\n"


@pytest.mark.parametrize(
    ("cell", "value"), [("3", 3.0), ("-0.25", -0.25), (" 7 ", 7.0), ("1e-2", 0.01), (".5", 0.5), ("+4.", 4.0)]
)
def test_numbers_as_text(cell: str, value: float, tmp_path: Path) -> None:
    read = corpus(tmp_path / "a.csv", csv(cell))
    scores = [score for rows in read.splits.values() for score in rows["score"]]
    assert value in scores and all(type(score) is float for score in scores)


@pytest.mark.parametrize("cell", ["high", "3;5", "1_000", "0x10", "nan", "inf", "-inf", "1e999", "٣", "3 4", "true"])
def test_what_is_no_number(cell: str, tmp_path: Path) -> None:
    expected = rf"line 22 of data\.path=.*a\.csv holds '{cell}', not a finite number.*set data\.columns\.score"
    with pytest.raises(UserError, match=expected):
        corpus(tmp_path / "a.csv", csv(cell))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, "line 3 of .* has no score \\(and 1 more such row\\)"),
        (float("nan"), "line 3 of .* has no score"),
        ("", "line 3 of .* has no score"),
        (float("inf"), "line 3 of .* holds 'inf', not a finite number"),
        (10**400, "line 3 of .* holds '1000.*…', not a finite number"),
        (True, "line 3 of .* holds 'True', not a finite number"),
        ([1.0], r"line 3 of .* holds '\[1.0\]', not a finite number"),
    ],
)
def test_cells_of_json(cell: Any, expected: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"text {i}", "score": i % 5} for i in range(30)]
    rows[2]["score"] = cell
    del rows[9]["score"]
    with pytest.raises(UserError, match=expected):
        corpus(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))


def test_a_column_of_another_name(tmp_path: Path) -> None:
    content = csv("3").replace("score", "rating", 1)
    assert len(corpus(tmp_path / "a.csv", content, columns={"score": "rating"}).train) == 17
    assert len(corpus(tmp_path / "a.csv", content, columns={"score": 1}).train) == 17
    with pytest.raises(UserError, match=r"no column 'score'; it has text, rating\. Set data\.columns\.score"):
        corpus(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=r"data\.columns\.grade names no column of the task: the task's are score"):
        corpus(tmp_path / "a.csv", content, columns={"grade": "rating"})
    with pytest.raises(UserError, match=r"data\.columns\.text names no column .* Set data\.text_column"):
        corpus(tmp_path / "a.csv", content, columns={"text": "rating"})
    with pytest.raises(UserError, match=r"data\.text_column and data\.columns\.score are both 'rating'"):
        corpus(tmp_path / "a.csv", content, columns={"score": "rating"}, text_column="rating")


def test_columns_are_of_the_files_of_the_user() -> None:
    with pytest.raises(UserError, match=r"has no column .score. of kind number, which the task reads.*data=files"):
        MangaIntent().load(SCORED)


def test_rows_lose_their_scores_at_random(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read = corpus(tmp_path / "a.csv", csv("3") + "text 1,2\n", labelled_share=0.5)
    assert len(read.train) == 9 and list(read.unlabelled.columns) == ["text"]
    texts = [text for rows in (*read.splits.values(), read.unlabelled) for text in rows["text"]]
    assert len(set(texts)) == 21 and not caplog.messages, "numbers that differ do not contradict"


def test_floats_of_parquet(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t {i}" for i in range(20)], "score": pa.array([0.1] * 20, pa.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert Files(path=str(tmp_path / "a.parquet")).load(SCORED).train["score"] == [0.1] * 16
