"""Do two answers to a question agree? Decided by the shape of the answers, so that the routes of any service are compared alike.

| answer | kind | two of them agree if |
|---|---|---|
| {"predictions": [{"label": …}]} | label | the labels are equal |
| {"predictions": [{"labels": […]}]} | labels | the sets of labels are equal |
| {"predictions": [{"value": …}]}, {"values": {…}} | values | no value differs by more than `agreement.value` |
| [{"index", "score"}] | top | the same document is first |
| {"predictions": [{"embedding": …}]}, [[…]], {"data": [{"embedding": …}]} | vector | their cosine is `agreement.cosine` or more |
| {"rewrites": […]}, {"choices": [{"message" or "text"}]} | text | token F1 is `agreement.f1` or more; 1.0: equal texts |

Token F1 is SQuAD's, without its removal of articles: 2 · |common| / (|a| + |b|) over words in lower case, counted as multisets.
Source: P. Rajpurkar et al., SQuAD, EMNLP 2016, section 6.1.
"""

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from mangakd.runtime.rollout.settings import Agreement

Item = tuple[str, Any]
"""A kind of the table and the value that is compared."""


def items(body: bytes) -> list[Item]:
    """The items of an answer: one for each text that was asked about, one for a ranking; empty for a shape that is not known."""
    try:
        return _items(json.loads(body))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return []


def agree(student: list[Item], incumbent: list[Item], place: float, rules: Agreement) -> bool | None:
    """None: the two cannot be compared.

    place: in [0, 1). Of an answer to several texts only the text at this place counts, so that a question is one Bernoulli trial:
    the texts of a question resemble each other, and a test that counted each would decide too early.
    """
    if not student or len(student) != len(incumbent):
        return None
    (kind, own), (other_kind, other) = (side[int(place * len(student))] for side in (student, incumbent))
    try:
        return _AGREES[kind](own, other, rules) if kind == other_kind else None
    except (ValueError, TypeError):  # such as vectors that hold no numbers
        return None


def token_f1(a: str, b: str) -> float:
    first, second = (Counter(re.findall(r"\w+", text.lower())) for text in (a, b))
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else float(a == b)


def _items(content: Any) -> list[Item]:
    if isinstance(content, list):
        if isinstance(content[0], dict):
            return [("top", content[0]["index"])]
        return [("vector", row) for row in content]
    if "predictions" in content:
        return [_prediction(each) for each in content["predictions"]]
    if "rewrites" in content:
        return [("text", text) for text in content["rewrites"]]
    if "data" in content:
        return [("vector", each["embedding"]) for each in content["data"]]
    return [("text", each["message"]["content"] if "message" in each else each["text"]) for each in content["choices"]]


def _prediction(answer: dict[str, Any]) -> Item:
    if "label" in answer:
        return "label", answer["label"]
    if "labels" in answer:
        return "labels", sorted(answer["labels"])
    if "embedding" in answer:
        return "vector", answer["embedding"]
    return "values", answer["values"] if "values" in answer else {"": answer["value"]}


def _same(own: Any, other: Any, _: Agreement) -> bool:
    return bool(own == other)


def _near(own: dict[str, float], other: dict[str, float], rules: Agreement) -> bool | None:
    if own.keys() != other.keys():
        return None
    return all(math.isclose(own[name], other[name], rel_tol=0, abs_tol=rules.value) for name in own)


def _along(own: Any, other: Any, rules: Agreement) -> bool | None:
    a, b = _vector(own), _vector(other)
    if a.shape != b.shape:
        return None
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return bool(lengths and float(a @ b) / lengths >= rules.cosine)


def _vector(value: Any) -> np.ndarray:
    """float64. OpenAI's base64 holds little-endian float32."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4").astype(np.float64)
    return np.asarray(value, dtype=np.float64)


def _alike(own: str, other: str, rules: Agreement) -> bool:
    return own == other or (rules.f1 < 1 and token_f1(own, other) >= rules.f1)


_AGREES: dict[str, Callable[[Any, Any, Agreement], bool | None]] = {
    "label": _same, "labels": _same, "top": _same, "values": _near, "vector": _along, "text": _alike,
}  # fmt: skip
