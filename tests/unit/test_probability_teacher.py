"""teacher=probabilities: probabilities that another model gave and a file keeps reach their texts, in the task's label order."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from contract.tiny_models import WORDS, silent, tokenizer

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.rows import Rows
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.classification.task import Classification
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.probabilities import Probabilities

NAMES = ("ask", "buy", "return")
HEAD, CPU = Head.of_labels(NAMES), torch.device("cpu")
TASK = Classification()
Objects = list[dict[str, Any]]


def rows(start: int) -> Rows:
    texts = [" ".join(WORDS[start + i : start + i + 3]) for i in range(4)]
    return Rows({"text": texts, "label": [(NAMES[i % 3],) for i in range(4)]}, [3, 4, 5, 6], "data.path=a.csv", "line")


TEXTS = {n: SequenceTexts(rows(start), TASK.sequences) for n, start in (("train", 0), ("validation", 20), ("test", 40))}
ALL = [text for each in TEXTS.values() for _, (text,) in each]


def probabilities(text: str) -> dict[str, float]:
    """In an order of its own."""
    numbers = np.random.default_rng(WORDS.index(text.split()[0])).dirichlet([1.0, 1.0, 1.0])
    return dict(zip(("return", "ask", "buy"), numbers.tolist(), strict=True))


def written(folder: Path, change: Callable[[Objects], object] = lambda content: None) -> str:
    content: Objects = [{"text": f" {text}", "label": "x", "probabilities": probabilities(text)} for text in ALL]
    change(content)
    (folder / "soft.jsonl").write_text("\n".join(map(json.dumps, content)))
    return str(folder / "soft.jsonl")


def context(tmp_path: Path, head: Head = HEAD) -> TeacherContext:
    read = Tokeniser(tokenizer(), tokenizer(), 16, tmp_path)
    splits = {name: TASK.encode(each.rows, HEAD, read) for name, each in TEXTS.items()}
    return TeacherContext(head, pytest.fail, splits, tmp_path, CPU, 4, silent, texts=TEXTS)


def answers(options: Probabilities, tmp_path: Path, head: Head = HEAD) -> np.ndarray:
    """softmax of the logits of test, which are those of rows 2, 0."""
    given = context(tmp_path, head)
    provider = options.provider(given).prepare(CPU, Need(answer=True))
    assert provider.spec.head == head and provider.gives == Need(answer=True) == options.gives(provider.spec)
    answer = provider(given.splits["test"].collate([2, 0]))
    assert answer.logits is not None and answer.logits.dtype == torch.float32
    return answer.logits.double().softmax(-1).numpy()  # type: ignore[no-any-return]


def wanted(*places: int, names: tuple[str, ...] = NAMES) -> list[list[float]]:
    texts = [text for _, (text,) in TEXTS["test"]]
    return [[probabilities(texts[i])[name] for name in names] for i in places]


def table_of(kind: str, folder: Path) -> Probabilities:
    order = ("return", "ask", "buy")
    numbers = [[probabilities(text)[name] for name in order] for text in ALL]
    match kind:
        case "objects in jsonl":
            return Probabilities(path=written(folder))
        case "objects in parquet":
            cells = pa.table({"text": ALL, "probabilities": [probabilities(text) for text in ALL]})
            pyarrow.parquet.write_table(cells, folder / "soft.parquet")
            return Probabilities(path=str(folder / "soft.parquet"))
        case "lists in parquet":
            cells = pa.table({"input": ALL, "p": pa.array(numbers, pa.list_(pa.float32()))})
            pyarrow.parquet.write_table(cells, folder / "soft.parquet")
            return Probabilities(path=str(folder / "soft.parquet"), labels=[*order], text_column="input", column="p")
    lines = [f'"{text}","{json.dumps(row)}"' for text, row in zip(ALL, numbers, strict=True)]
    (folder / "soft.csv").write_text("text,probabilities\n" + "\n".join(lines))
    return Probabilities(path=str(folder / "soft.csv"), labels=[*order])


@pytest.mark.parametrize("kind", ["objects in jsonl", "objects in parquet", "lists in parquet", "lists in csv"])
def test_each_text_has_its_probabilities_in_the_order_of_the_task(kind: str, tmp_path: Path) -> None:
    options = table_of(kind, tmp_path)
    options.check(TEXTS)
    np.testing.assert_allclose(answers(options, tmp_path), wanted(2, 0), atol=1e-5)
    assert options.models == [] and options.name == f"probabilities of {Path(options.path).name}"


def test_a_floor_by_hand(tmp_path: Path) -> None:
    """(1, 0, 0) becomes (1, 0.01, 0.01) / 1.02."""

    def sure(content: Objects) -> None:
        for row in content:
            row["probabilities"] = {"buy": 1.0, "ask": 0, "return": 0}

    result = answers(Probabilities(path=written(tmp_path, sure), floor=0.01), tmp_path)
    np.testing.assert_allclose(result, [[0.01 / 1.02, 1 / 1.02, 0.01 / 1.02]] * 2, atol=1e-6)
    with pytest.raises(UserError, match=r"teacher\.floor=0 must be"):
        Probabilities(path="x", floor=0)


def test_rows_of_one_text_are_averaged(tmp_path: Path) -> None:
    """Samples of a teacher that gives no log-probabilities: (1, 0, 0), (1, 0, 0), (0, 1, 0) are (2/3, 1/3, 0)."""

    def samples(content: Objects) -> None:
        for name in ("ask", "ask", "buy"):
            content += [{"text": ALL[8], "probabilities": {name: 1}}]
        del content[8]

    result = answers(Probabilities(path=written(tmp_path, samples)), tmp_path)
    np.testing.assert_allclose(result[1], [2 / 3, 1 / 3, 0], atol=1e-5)


def test_drawn_labels_of_a_text_are_their_shares(tmp_path: Path) -> None:
    """Of four samples three say ask and one says buy: (3/4, 1/4, 0)."""
    rows = [{"text": text, "label": name} for text in ALL for name in ("ask", "ask", "buy", "ask")]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"text": "more", "label": "return"}])))
    result = answers(Probabilities(path=str(tmp_path / "labels.jsonl"), column="label"), tmp_path)
    np.testing.assert_allclose(result, [[3 / 4, 1 / 4, 0]] * 2, atol=1e-5)


def test_a_text_without_any_label_of_the_data_is_refused(tmp_path: Path) -> None:
    def other_label(content: Objects) -> None:
        content[1]["probabilities"] = {"gift": 1.0}

    with pytest.raises(UserError, match="gives 1 texts no probability for any label of the data"):
        answers(Probabilities(path=written(tmp_path, other_label)), tmp_path)


def test_a_label_that_the_data_lacks_loses_its_probability(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = Head.of_labels(NAMES[:2])
    result = answers(Probabilities(path=written(tmp_path)), tmp_path, head)
    numbers = np.array(wanted(2, 0, names=NAMES[:2]))
    np.testing.assert_allclose(result, numbers / numbers.sum(1, keepdims=True), atol=1e-5)
    assert any("the data has no row of return" in line for line in caplog.messages)


def other(content: Objects) -> None:
    content[1] = {**content[2], "text": content[1]["text"]}


def test_a_fingerprint_is_of_the_numbers(tmp_path: Path) -> None:
    changes: list[Callable[[Objects], object]] = [lambda content: None, lambda content: content.reverse(), other]
    prints = [
        Probabilities(path=written(tmp_path, change)).provider(context(tmp_path)).fingerprint for change in changes
    ]
    assert prints[0] == prints[1] != prints[2]


BAD: list[tuple[Callable[[Objects], object], str]] = [
    (lambda c: c.pop(), r"has no probability for 1 of the 4 texts of test: .* \(line 6 of data\.path=a\.csv\)"),
    (lambda c: c[2].update(probabilities={"ask": 0.5}), r"line 3 of teacher\.path=.* sum 0\.5000, which must be 1"),
    (lambda c: c[2].update(probabilities={"ask": 1.5, "buy": -0.5}), r"line 3 .* must be a number from 0 to 1"),
    (lambda c: c[2].update(probabilities={"ask": None, "buy": 1}), r"line 3 .* must be a number from 0 to 1"),
    (lambda c: c[2].update(probabilities={"ask": "much"}), r"line 3 .* holds 'much', no probabilities"),
    (lambda c: c[2].update(probabilities="[ask"), r"line 3 .* holds '\[ask', no probabilities"),
    (lambda c: c[2].update(probabilities=""), r"line 3 .* has 0 probabilities"),
    (lambda c: c[2].update(probabilities=[0.5, 0.5]), r"line 3 .* has 2 probabilities, and teacher\.labels has 3 names"),
    (lambda c: [row.update(probabilities=[1.0]) for row in c], r"no names are known: set teacher\.labels"),
    (lambda c: [row.update(p=row.pop("probabilities")) for row in c], r"no column 'probabilities'.*Set teacher\.column"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_probabilities_are_refused(change: Callable[[Objects], object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        Probabilities(path=written(tmp_path, change)).check(TEXTS)


def test_heads_that_have_no_such_probabilities_are_refused(tmp_path: Path) -> None:
    options = Probabilities(path=written(tmp_path))
    with pytest.raises(
        UserError, match="has no probability for refund, which the data has as a label; it names return, ask"
    ):
        options.head(Head.of_labels(("ask", "refund")), [])
    with pytest.raises(UserError, match="multi_label"):
        options.head(Head.of_labels(NAMES, several=True), [])
    with pytest.raises(UserError, match="gives probabilities, and the task's head is a score"):
        options.head(Head("score", 1), [])


def test_unknown_names_are_refused_where_names_are_set(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"line 1 .* has a probability for 'return', which teacher\.labels does not name"
    ):
        Probabilities(path=written(tmp_path), labels=["ask", "buy"]).check(TEXTS)


def test_the_log_says_nothing_where_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answers(Probabilities(path=written(tmp_path)), tmp_path)
    assert not caplog.messages
