"""Answers of a loaded student are those of the model written in numpy: any texts, any batches, both backends."""

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import made_variant
import numpy as np
import pytest
from made_variant import HEAD, LABELS, MAX_LENGTH, SEVERAL, expected, variant

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.runtime import Model, load
from mangakd.runtime.answers import answers

TEXTS = [
    "where is my order?",
    "",
    "refund " * 200,
    "東京 🎌 café",
    "a",
    "shipping to Kyoto\x00\n\t",
    " ",
    "\ud83d alone",
]


def model(head: Head = HEAD, backend: str = "onnxruntime") -> Model:
    return load(variant(head, backend), threads=1)


def reference(asked: Model, texts: list[str], columns: int = len(LABELS)) -> np.ndarray:
    return np.stack([expected(encoding.ids, columns) for encoding in asked._tokeniser(texts)])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rows_are_the_model_s_in_the_order_of_the_texts(backend: str, batch_size: int) -> None:
    student = model(backend=backend)
    rows = student.outputs(TEXTS, batch_size)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, reference(student, TEXTS), atol=1e-5)


def test_long_texts_are_cut_with_the_special_tokens_kept() -> None:
    ids = model()._tokeniser(["refund " * 200])[0].ids
    assert len(ids) == MAX_LENGTH and (ids[0], ids[-1]) == (101, 102)  # [CLS] and [SEP] of BERT's vocabulary


def test_no_texts_no_answers() -> None:
    assert model().predict([]) == []


def test_single_label() -> None:
    student = model()
    logits = reference(student, TEXTS)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    for answer, row in zip(student.predict(TEXTS), odds, strict=True):
        assert answer["label"] == LABELS[row.argmax()]
        assert list(answer["probabilities"]) == [LABELS[i] for i in np.argsort(-row)]
        assert answer["probability"] == pytest.approx(row.max(), abs=1e-5)
        assert [answer["probabilities"][label] for label in LABELS] == pytest.approx(row.tolist(), abs=1e-5)
    assert [list(answer["probabilities"]) for answer in student.predict(TEXTS[:2], top=1)] == [
        [answer["label"]] for answer in student.predict(TEXTS[:2])
    ]


def test_multi_label_names_all_from_one_half() -> None:
    rows = np.array([[0.0, -1.0, 3.0], [-4.0, -5.0, -1e9]], dtype=np.float32)
    first, second = answers(rows, SEVERAL, top=2)
    assert first["labels"] == ["order", "shipping"]
    assert first["probabilities"] == pytest.approx({"shipping": 1 / (1 + np.exp(-3)), "order": 0.5})
    assert second["labels"] == [] and list(second["probabilities"]) == ["order", "refund"]


def test_of_equal_labels_the_first_wins_and_extremes_are_numbers() -> None:
    rows = np.array([[1, 1, 1], [-3e38, 3e38, 3e38]], dtype=np.float32)
    found = answers(rows, HEAD)
    assert [answer["label"] for answer in found] == ["order", "refund"]
    assert found[1]["probabilities"] == {"refund": 0.5, "shipping": 0.5, "order": 0.0}


def test_regression() -> None:
    student = model(Head("score", 1))
    values = [answer["value"] for answer in student.predict(TEXTS)]
    assert values == pytest.approx(reference(student, TEXTS, 1)[:, 0].tolist(), abs=1e-4)
    assert answers(np.ones((1, 3)), Head("score", 3, LABELS)) == [{"values": dict.fromkeys(LABELS, 1.0)}]
    assert answers(np.ones((1, 2)), Head("score", 2)) == [{"values": {"LABEL_0": 1.0, "LABEL_1": 1.0}}]


def test_embeddings() -> None:
    student = model(Head("vector", 5))
    np.testing.assert_allclose(student.embed(TEXTS), reference(student, TEXTS, 5), atol=1e-5)
    with pytest.raises(UserError, match="use embed"):
        student.predict(TEXTS)
    with pytest.raises(UserError, match="use predict"):
        model().embed(TEXTS)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("where?", {}, "texts is one str; give a list"),
        (None, {}, "texts is a NoneType"),
        (["a", 3], {}, r"texts\[1\] is a int"),
        ([b"a"], {}, r"texts\[0\] is a bytes"),
        ([["a"]], {}, r"texts\[0\] is a list"),
        (["a"], {"batch_size": 0}, "batch_size=0: give how many"),
        (["a"], {"batch_size": True}, "batch_size=True"),
        (["a"], {"top": 0}, "top=0: give how many"),
        (["a"], {"top": 1.5}, "top=1.5"),
    ],
)
def test_wrong_questions_are_told(texts: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model().predict(texts, **options)


def test_wrong_threads_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="threads=0"):
        load(tmp_path, threads=0)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_many_threads_may_ask_at_a_time(backend: str) -> None:
    student = model(backend=backend)
    right = student.outputs(TEXTS)
    wrong: list[int] = []

    def ask(turn: int) -> None:
        for start in range(len(TEXTS)):
            rows = student.outputs(TEXTS[start:], batch_size=2)
            if not np.allclose(rows, right[start:], atol=1e-5):
                wrong.append(turn)

    threads = [threading.Thread(target=ask, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_any_unicode_in_any_batch() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="property tests: pip install hypothesis")
    anything = hypothesis.strategies.text(hypothesis.strategies.characters(exclude_categories=()), max_size=80)
    student = model()

    @hypothesis.settings(max_examples=100, deadline=None, database=None)
    @hypothesis.given(
        hypothesis.strategies.lists(anything, min_size=1, max_size=9), hypothesis.strategies.integers(1, 9)
    )
    def alone_or_together(texts: list[str], batch_size: int) -> None:
        together = student.outputs(texts, batch_size)
        np.testing.assert_allclose(together, reference(student, texts), atol=1e-4)
        assert [a["label"] for a in student.predict(texts)] == [LABELS[i] for i in together.argmax(axis=1)]

    alone_or_together()


def test_a_model_of_another_shape_is_refused_when_loaded(tmp_path: Path) -> None:
    folder = made_variant.copied(variant(), tmp_path)
    made_variant.write_manifest(folder, head=asdict(Head.of_labels(LABELS[:2])))
    with pytest.raises(UserError, match=r"answers a text with float32\[1, 3\]; its manifest promises logits \[1, 2\]"):
        load(folder)
    made_variant.write_manifest(folder, inputs=["input_ids", "attention_mask", "token_type_ids"])
    with pytest.raises(UserError, match=r"takes \['input_ids', 'attention_mask'\] and gives \['logits'\]"):
        load(folder)
