"""When two answers agree, kind by kind; token F1 by hand; and which side a request id chooses."""

import base64
import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mangakd.runtime.rollout.agreement import agree, items, token_f1
from mangakd.runtime.rollout.choice import place
from mangakd.runtime.rollout.settings import Agreement

RULES = Agreement(cosine=0.8, value=0.1)


def same(student: Any, incumbent: Any, at: float = 0.0, rules: Agreement = RULES) -> bool | None:
    return agree(*(items(json.dumps(each).encode()) for each in (student, incumbent)), at, rules)


def label(*names: str) -> dict[str, Any]:
    return {"predictions": [{"label": name, "probability": 0.9} for name in names]}


def text64(*numbers: float) -> dict[str, Any]:
    return {"data": [{"embedding": base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()}]}


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.mark.parametrize(
    ("one", "other", "result"),
    [
        (label("a"), label("a"), True),
        (label("a"), label("b"), False),
        ({"predictions": [{"labels": ["a", "b"]}]}, {"predictions": [{"labels": ["b", "a"]}]}, True),
        ({"predictions": [{"labels": []}]}, {"predictions": [{"labels": ["a"]}]}, False),
        ({"predictions": [{"value": 3.0}]}, {"predictions": [{"value": 3.09}]}, True),
        ({"predictions": [{"values": {"joy": 3.0}}]}, {"predictions": [{"values": {"joy": 3.2}}]}, False),
        (
            [{"index": 2, "score": 1}, {"index": 0, "score": 0}],
            [{"index": 2, "score": 9}, {"index": 1, "score": 8}],
            True,
        ),
        ([{"index": 2, "score": 1}], [{"index": 0, "score": 1}], False),
        ([[1.0, 0.0]], [[4.0, 3.0]], True),  # cosine 4 / 5
        ([[1.0, 0.0]], [[3.0, 4.0]], False),  # cosine 3 / 5
        (text64(1, 0), {"data": [{"embedding": [4, 3]}]}, True),
        ({"rewrites": ["where is order 3"]}, {"rewrites": ["where is order 3"]}, True),
        ({"rewrites": ["where is order 3"]}, {"rewrites": ["Where is order 3"]}, False),
        (says("yes"), says("yes"), True),
        ({"choices": [{"text": "yes"}]}, {"choices": [{"text": "no"}]}, False),
        # What cannot be compared is neither.
        (label("a"), label("a", "b"), None),
        (label("a"), [[1.0]], None),
        ([[1.0, 0.0]], [[1.0]], None),
        ([["a"]], [[1.0]], None),
        ({"predictions": [{"values": {"joy": 1}}]}, {"predictions": [{"values": {"fear": 1}}]}, None),
        ({"other": 1}, {"other": 1}, None),
        ([], [], None),
        (3, 3, None),
    ],
)
def test_kinds(one: Any, other: Any, result: bool | None) -> None:
    assert same(one, other) is result


def test_one_text_of_a_question_counts() -> None:
    one, other = label("a", "b", "c", "d"), label("a", "x", "c", "d")
    assert [same(one, other, at) for at in (0.0, 0.25, 0.49, 0.5, 0.99)] == [True, False, False, True, True]


def test_token_f1() -> None:
    """{where, is, my, order} and {where, is, the, order, now}: 3 in common, 2 · 3 / (4 + 5)."""
    assert token_f1("Where is my order?", "where is the order now") == pytest.approx(2 / 3)
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)  # multisets
    assert token_f1("", "") == 1 and token_f1("?", "!") == 0
    near = replace(RULES, f1=0.6)
    assert same({"rewrites": ["Where is my order?"]}, {"rewrites": ["where is the order now"]}, rules=near) is True


def test_a_place_is_uniform_and_its_own_for_each_purpose() -> None:
    """Golden: SHA-256 of "a:side:1" begins with these 8 bytes, by sha256sum."""
    assert place("a", "side", "1") == pytest.approx(0x65CB59766A1E66A3 / 2**64, abs=2**-52)
    places = np.array([(place("a", "side", str(i)), place("a", "compare", str(i))) for i in range(4000)])
    assert np.abs(np.histogram(places[:, 0], 10, (0, 1))[0] - 400).max() < 80  # 4 standard deviations
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.06
    assert place("a", "side", "1") != place("b", "side", "1")


def test_the_largest_place_is_under_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a share of 1 nobody else answers, and the place of a text lies within the texts."""
    monkeypatch.setattr(hashlib, "sha256", lambda _: SimpleNamespace(digest=lambda: b"\xff" * 32))
    assert 1 - 2**-52 < place("a", "side", "1") < 1
