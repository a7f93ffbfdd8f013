"""What may be asked, and how a wrong body is told: one sentence and a status, whatever the bytes are."""

import json
import random
import sys
from pathlib import Path

import pytest

from mangakd.runtime.question import SCHEMA, Limits, Prediction, Refused, parse, question

LIMITS = Limits(texts=2, characters=10, body=6000)


def ask(body: bytes, limits: Limits = LIMITS) -> Prediction:
    return question(parse(body, limits), None, limits)  # type: ignore[arg-type]  # it reads nothing of a model


def test_a_question() -> None:
    assert ask(b'{"texts": ["a", ""]}') == Prediction(["a", ""])
    assert ask('{"texts": ["東京"], "top": 3}'.encode()) == Prediction(["東京"], 3)
    assert ask(b'{"texts": ["a"], "top": null}') == Prediction(["a"])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body is empty; send an object"),
        (b"texts=a", 400, "no JSON"),
        (b"\xff\xfe\xfa", 400, "the body is no UTF-8: invalid start byte at byte 0"),
        ('{"texts": ["a"]}'.encode("utf-16"), 400, "no UTF-8"),
        ('{"texts": ["a"]}'.encode("utf-16-le"), 400, "no JSON"),
        (b'{"texts": ["\xed\xa0\x80"]}', 400, "no UTF-8: .* at byte 12"),
        (b'\xef\xbb\xbf{"texts": ["a"]}', 400, "no JSON: Unexpected UTF-8 BOM"),
        (b"[" * 5000, 400, "no JSON"),
        (b"9" * 5000, 400, "no JSON"),
        (b" " * 6001, 413, "larger than 6,000 bytes; send fewer"),
        (b"[]", 422, "the body is a list; send an object"),
        (b"NaN", 422, "the body is a number"),
        (b"{}", 422, "texts is missing or null; send a list"),
        (b'{"texts": "a"}', 422, "texts is a string"),
        (b'{"texts": []}', 422, "holds 0 texts; send 1 to 2"),
        (b'{"texts": ["a", "b", "c"]}', 422, "holds 3 texts"),
        (b'{"texts": ["a", true]}', 422, r"texts\[1\] is a boolean"),
        (b'{"texts": ["01234567890"]}', 422, r"texts\[0\] has 11 characters; at most 10"),
        (b'{"text": ["a"]}', 422, "unknown key 'text'; did you mean texts"),
        (b'{"texts": ["a"], "top": 0}', 422, "top is 0; send a number of labels from 1 on"),
        (b'{"texts": ["a"], "top": true}', 422, "top is True"),
        (b'{"texts": ["a"], "top": -1' + b"0" * 4000 + b"}", 422, "top is a number"),
        (b'{"texts": ["a"], "top": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "top is a list"),
        (b'{"texts": ["a"], "\\ud800": 1}', 422, r"unknown key '\\ud800'"),
    ],
)
def test_wrong_bodies_are_told(body: bytes, status: int, message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        ask(body)
    assert caught.value.status == status


def test_a_huge_top_is_all_labels() -> None:
    assert (ask(b'{"texts": ["a"], "top": 1' + b"0" * 4000 + b"}").top or 0) < 2**31


def test_no_bytes_get_past_the_check() -> None:
    """The bodies that benchmarks/serving.py fuzzes the service with; each is a question or refused, never another error."""
    pytest.importorskip("httpx", reason="the client of the benchmark: pip install httpx")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from serving_client import strange_bodies

    taken = 0
    for body in strange_bodies(3000, seed=1):
        try:
            ask(body, Limits())
            taken += 1
        except Refused as error:
            assert error.status in (400, 413, 422) and len(str(error)) < 400
            json.dumps(str(error)).encode()
    assert 500 < taken < 1500  # about a fifth is meant to be right, some that were broken still are


def test_the_schema_in_the_docs_allows_what_the_check_allows() -> None:
    assert set(SCHEMA["properties"]) == set(Prediction.__dataclass_fields__)
    chance = random.Random(0)
    for key in SCHEMA["properties"]:
        with pytest.raises(Refused, match=key):
            ask(json.dumps({"texts": ["a"], key: chance.random()}).encode())
