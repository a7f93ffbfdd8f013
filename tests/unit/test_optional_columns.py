"""Columns that a file may lack: rows then hold nothing there, and only what is half there is refused."""

import json
import math
from pathlib import Path

import pytest

from mangakd.core.errors import UserError
from mangakd.data.source import Corpus
from mangakd.data.sources import Files
from mangakd.tasks.embedding.task import Embedding

TASK = Embedding()


def written(file: Path, rows: list[dict[str, object]]) -> str:
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(file)


def load(tmp_path: Path, train: list[dict], held_out: list[dict] | None = None, **options: object) -> Corpus:
    path = written(tmp_path / "train.jsonl", train)
    other = written(tmp_path / "other.jsonl", held_out or [{"anchor": "a", "positive": "b", "score": 0.5}])
    source = Files(path=path, val_path=other, test_path=other, **options)  # type: ignore[arg-type]
    return source.load(TASK.columns, TASK.optional)


def test_files_of_other_columns_become_rows_of_all(tmp_path: Path) -> None:
    corpus = load(tmp_path, [{"text": "one"}, {"text": "two"}])
    assert corpus.train["text"] == ["one", "two"] and corpus.train["anchor"] == ["", ""]
    assert corpus.train["negatives"] == [(), ()] and all(map(math.isnan, corpus.train["score"]))
    assert corpus.validation["score"] == [0.5] and corpus.validation["text"] == [""]
    prepared = TASK.prepare(corpus)
    assert prepared.train["anchor"] == ["one", "two"] and prepared.train["text"] == ["", ""]
    assert not TASK.has_labels(prepared.train) and TASK.has_labels(prepared.validation)


def test_a_row_may_lack_what_others_have(tmp_path: Path) -> None:
    rows = [
        {"anchor": "a", "positive": "b"},
        {"anchor": "c", "positive": "d", "negatives": ["e", "f"]},
        {"anchor": "g"},
    ]
    corpus = load(tmp_path, rows)  # type: ignore[arg-type]
    assert corpus.train["negatives"] == [(), ("e", "f"), ()] and corpus.train["positive"] == ["b", "d", ""]


def test_columns_are_found_under_the_names_that_are_given(tmp_path: Path) -> None:
    corpus = load(tmp_path, [{"sentence": "one"}], [{"anchor": "a", "positive": "b", "rating": 1}],
                  text_column="sentence", columns={"score": "rating"})  # fmt: skip
    assert corpus.train["text"] == ["one"] and corpus.test["score"] == [1.0]


def test_an_item_that_is_missing_in_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1 of data\.path=.* has no text at place 2 of its negatives"):
        load(tmp_path, [{"anchor": "a", "positive": "b", "negatives": ["c", ""]}])


def test_a_file_without_any_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no column 'anchor'; it has words\. Set data\.columns\.anchor"):
        load(tmp_path, [{"words": "one"}])


def test_texts_of_a_file_of_their_own_are_unlabelled_rows(tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("three\none\nfour\n")
    corpus = TASK.prepare(load(tmp_path, [{"text": "one"}, {"text": "two"}], unlabelled_path=str(more)))
    assert corpus.unlabelled["anchor"] == ["three", "four"] and corpus.unlabelled["negatives"] == [(), ()]


@pytest.mark.parametrize(
    ("held_out", "monitor", "words"),
    [
        ([{"anchor": "a", "positive": "b"}], "spearman", r"validation has pairs without a score .*Set task\.monitor=ndcg@10"),
        ([{"anchor": "a", "positive": "b", "score": 1}], "ndcg@10", r"has pairs with a score .*Set task\.monitor=spearman"),
        ([{"text": "a"}], "spearman", r"has texts alone .*Set data\.val_path to a file of pairs"),
    ],
)  # fmt: skip
def test_validation_rows_that_the_monitor_cannot_score_are_refused(
    tmp_path: Path, held_out: list[dict], monitor: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        Embedding(monitor=monitor).prepare(load(tmp_path, [{"text": "one"}], held_out))


def test_options_of_the_task_are_checked() -> None:
    with pytest.raises(UserError, match=r"task\.most=0 must be a number above 0"):
        Embedding(most=0)
    with pytest.raises(UserError, match=r"task\.prompts\.teecher is unknown; did you mean teacher"):
        Embedding(prompts={"teecher": {}})
    with pytest.raises(UserError, match=r"task\.prompts\.student\.anchor is unknown.*Known: query, document"):
        Embedding(prompts={"student": {"anchor": "q: "}})


def test_a_name_that_no_file_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.columns\.score=ratign names a column that no file has"):
        load(tmp_path, [{"text": "one"}], columns={"score": "ratign"})
