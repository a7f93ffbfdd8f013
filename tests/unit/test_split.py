"""Splits of one file: equal texts stay on one side, a class's last row stays in train, and the rest is as it always was."""

import logging
import random
from pathlib import Path

import pytest
from data_files import loaded

from mangakd.core.errors import UserError
from mangakd.data.rows import CLASSES, Rows
from mangakd.data.sources import Files
from mangakd.data.split import split_off, warn_of_copies

NAMES = ("validation", "test")


def rows(texts: list[str], labels: list[str]) -> Rows:
    numbers = list(range(2, len(texts) + 2))
    return Rows({"text": texts, "label": [(label,) for label in labels]}, numbers, "data.path=a.csv", "line")


def different(count: int = 200) -> Rows:
    return rows([f"text {i}" for i in range(count)], ["abc"[i % 3] for i in range(count)])


@pytest.mark.parametrize("seed", range(5))
def test_without_copies_the_split_is_the_one_of_before(seed: int) -> None:
    order = list(range(200))
    random.Random(seed).shuffle(order)
    parts = split_off(different(), NAMES, seed, CLASSES)
    expected = {"validation": order[:20], "test": order[20:40], "train": order[40:]}
    assert {name: part["text"] for name, part in parts.items()} == {
        name: [f"text {i}" for i in sorted(some)] for name, some in expected.items()
    }


@pytest.mark.parametrize("seed", range(10))
def test_equal_texts_stay_on_one_side(seed: int) -> None:
    """Copies differ in blanks and in the composition of é."""
    texts = [copy for i in range(70) for copy in (f"caf\u00e9 {i}", f" cafe\u0301  {i}", f"caf\u00e9 {i}\n")]
    parts = split_off(rows(texts, ["a", "b", "b"] * 70), NAMES, seed, CLASSES)
    numbers = [{text.split()[1] for text in part["text"]} for part in parts.values()]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == 70
    assert {name: len(part) for name, part in parts.items()} == {"train": 168, "validation": 21, "test": 21}


@pytest.mark.parametrize("seed", range(100))
def test_the_only_row_of_a_class_stays_in_train(seed: int) -> None:
    labels = ["a", "b"] * 20 + ["single", "twice", "twice"]
    data = rows([f"text {i}" for i in range(43)], labels)
    train = split_off(data, NAMES, seed, CLASSES)["train"]
    assert {label for names in train["label"] for label in names} == {"a", "b", "single", "twice"}


def test_sets_of_labels_keep_each_label_in_train() -> None:
    names = [("a",), ("b", "a"), (), ("a",)] * 9 + [("a", "rare")] * 4
    data = Rows({"text": [f"text {i}" for i in range(40)], "label": names})
    for seed in range(20):
        train = split_off(data, NAMES, seed, CLASSES)["train"]
        assert {label for names in train["label"] for label in names} == {"a", "b", "rare"}


def test_too_few_rows_to_split() -> None:
    with pytest.raises(
        UserError, match=r"a.csv has 30 rows of 1 different texts, too few to split validation and test off"
    ):
        split_off(rows(["same"] * 30, ["a", "b"] * 15), NAMES, 0, CLASSES)
    with pytest.raises(UserError, match=r"has 4 rows, too few .* set data.val_path and data.test_path"):
        split_off(rows(["a", "b", "c", "d"], ["a", "b", "c", "d"]), NAMES, 0, CLASSES)


def test_contradictions_are_counted_with_an_example(caplog: pytest.LogCaptureFixture) -> None:
    data = rows(["x", "y", "z", " x", "y", "z"], ["a", "a", "a", "b", "a", "c"])
    with caplog.at_level(logging.WARNING):
        warn_of_copies({"train": data}, CLASSES)
    assert caplog.messages == [
        "texts with different labels in different rows, all of which are kept: 2; first: "
        "'x' is 'a' in line 2 of data.path=a.csv, and 'b' in line 5 of data.path=a.csv"
    ]


def test_texts_of_train_in_another_file_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"text {i},{'ab'[i % 2]}\n" for i in range(30)]
    for name, some in (("train.csv", lines), ("test.csv", ["new,a\n", *lines[:4]])):
        (tmp_path / name).write_text("text,label\n" + "".join(some))
    with caplog.at_level(logging.WARNING):
        loaded(Files(path=str(tmp_path / "train.csv"), test_path=str(tmp_path / "test.csv")))
    assert (
        "test.csv: texts that train has, too, so that their scores are too good: 4; first: line 3, 'text 0'"
        in caplog.text
    )


def test_too_few_conversations_are_told_without_classes() -> None:
    columns = {"history": "turns", "utterance": "text", "rewrite": "answers"}
    history = [("who wrote Nana?",), ("who wrote Nana?", "Ai Yazawa"), ("who wrote Mao?",)]
    data = Rows({"history": history, "utterance": ["a", "b", "c"], "rewrite": [("d",)] * 3}, origin="data.path=a.jsonl")
    with pytest.raises(
        UserError, match=r"has 3 rows of 2 conversations or groups, too few to split validation and test off\. Add"
    ):
        split_off(data, NAMES, 0, columns)
    with pytest.raises(
        UserError, match=r"a.jsonl has 1 row, too few to split test off\. Add rows, or set data.test_path"
    ):
        split_off(data.take([0]), ["test"], 0, columns)
