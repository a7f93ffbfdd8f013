"""A student that writes, served without torch: texts, turns, limits, wrong questions, over HTTP and in Lambda."""

import asyncio
import importlib
import sys
from typing import Any

import numpy as np
import pytest
from made_variant import MAX_LENGTH, variant
from made_writer import DECODING, HEAD, NEW, SEP, copier

from mangakd.core.errors import UserError
from mangakd.runtime import load
from mangakd.runtime.decoding import BLANK, Decoding
from mangakd.runtime.question import Limits
from mangakd.runtime.routes import ROUTES
from mangakd.runtime.writer import Writer

TEXTS = ["where is my order?", "", "refund", "the order is late and the refund", "no"]
LONG = "order " * 40


def copies(texts: list[str]) -> list[str]:
    return [text.replace("?", " ?") for text in texts]


def test_texts_alone_and_in_batches() -> None:
    model = load(copier(), threads=1)
    assert model.use == "rewrite(texts)" and model.gives == "a text"
    for size in (1, 2, 5):
        assert [text.replace("?", " ?").replace("  ", " ") for text in model.rewrite(TEXTS, size)] == copies(TEXTS)
    assert model.rewrite([]) == []


def test_a_text_ends_at_the_stop_or_at_the_most_tokens() -> None:
    rows = load(copier(), threads=1).outputs([TEXTS[0], LONG])
    assert rows.dtype == np.int64 and rows.shape == (2, NEW)
    end = int(np.flatnonzero(rows[0] == SEP)[0])
    assert (rows[0, end + 1 :] == BLANK).all() and (rows[0, : end + 1] >= 0).all()
    assert (rows[1] >= 0).all() and SEP not in rows[1]
    few = {**DECODING.entry(), "max_new_tokens": 3}
    assert load(copier(decoding=few), threads=1).outputs(TEXTS).shape == (len(TEXTS), 3)


def test_the_past_and_the_mask_are_what_the_decoder_needs() -> None:
    """At step n the past has n tokens: the start, and those written before; the source is read once."""
    calls: list[dict[str, np.ndarray]] = []
    words = np.array([[3, 5, 7], [4, 2, 9]])  # what each text writes; 2 ends a text

    def encoder(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        calls.append({"source": arrays["input_ids"]})
        return [np.ones((2, 1, 4, 1), dtype=np.float32)] * 2

    def decoder(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        calls.append(arrays)
        new = arrays["input_ids"][:, None, :, None].astype(np.float32)
        longer = np.concatenate([arrays["past_key_0"], new], 2)
        logits = np.zeros((2, 12), dtype=np.float32)
        logits[[0, 1], words[:, longer.shape[2] - 1]] = 1
        logits[:, 11] = 2  # beyond the vocabulary
        return [logits, longer, longer]

    writer = Writer(encoder, decoder, Decoding("d", 1, 1, 1, 8, (2,), 11, 3))
    ids = np.zeros((2, 4), dtype=np.int64)
    assert writer({"input_ids": ids, "attention_mask": ids + 1}).tolist() == [[3, 5, 7], [4, 2, BLANK]]
    assert len(calls) == 1 + 3 and [call["past_key_0"].shape[2] for call in calls[1:]] == [0, 1, 2]
    assert calls[3]["past_key_0"][:, 0, :, 0].tolist() == [[8, 3], [8, 4]] and calls[3]["input_ids"].tolist() == [
        [5],
        [2],
    ]
    assert writer.logits({"input_ids": ids, "attention_mask": ids + 1}, words).argmax(-1).tolist() == [[11] * 3] * 2


def test_turns_are_joined_and_the_oldest_left_out() -> None:
    model = load(copier(), threads=1)
    assert model.rewrite([["my order", " ", "where"]]) == model.rewrite(["my order | where"])
    cut = model.lengths([("refund " * 20, "order " * 20, "where is it")])
    assert cut == ([20 + 4 + 2], False)
    assert model.lengths([("order", LONG)]) == ([MAX_LENGTH], True)
    with pytest.raises(UserError, match="does not say how turns are joined"):
        load(copier(turns=None), threads=1).rewrite([["a", "b"]])


def test_wrong_calls() -> None:
    model = load(copier(), threads=1)
    with pytest.raises(UserError, match=r"answers with a text: use rewrite\(texts\)"):
        model.predict(["a"])
    with pytest.raises(UserError, match=r"answers with 3 labels.*: use predict\(texts\)"):
        load(variant(), threads=1).rewrite(["a"])
    for wrong, message in (("a", "one str"), ([1], "is a int"), ([["a", 1]], r"texts\[0\]\[1\] is a int")):
        with pytest.raises(UserError, match=message):
            model.rewrite(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"decoding": None}, "decoding"), ({"decoding": {**DECODING.entry(), "model": "other.onnx"}}, "decoding"),
        ({"decoding": {**DECODING.entry(), "layers": 0}}, "decoding"),
        ({"decoding": {**DECODING.entry(), "more": 1}}, "decoding"),
        ({"output": "logits"}, "output"), ({"turns": {"template": "no place"}}, "turns"),
        ({"head": {"kind": "tokens", "outputs": 5000, "names": [], "several": False}}, "head"),
    ],
)  # fmt: skip
def test_wrong_manifests(changes: dict[str, Any], wrong: str) -> None:
    with pytest.raises(UserError, match=f"cannot be used: {wrong}"):
        load(copier(**changes), threads=1)


def test_logits_that_are_not_finite_are_no_text() -> None:
    def decoder(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.full((1, 12), np.nan, dtype=np.float32), *[np.zeros((1, 1, 1, 1), dtype=np.float32)] * 2]

    keys = [np.ones((1, 1, 1, 1), dtype=np.float32)] * 2
    writer = Writer(lambda arrays: keys, decoder, Decoding("d", 1, 1, 1, 8, (2,), 11, 3))
    one = np.ones((1, 1), dtype=np.int64)
    with pytest.raises(FloatingPointError):
        writer({"input_ids": one, "attention_mask": one})


def test_over_http() -> None:
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    from mangakd.runtime.service import Settings, create_app

    model = load(copier(), threads=1)
    app = create_app(model, Settings(max_batch=4, queue=8, limits=Limits(texts=3, characters=100)))

    async def ask() -> list[Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            bodies = [
                {"texts": TEXTS[:3]}, {"texts": [["my order", "where"], "no"]}, {"texts": []}, {"texts": ["a"] * 4},
                {"texts": [["a"] * 4]}, {"texts": [[]]}, {"texts": ["a" * 101]}, {"texts": [["a" * 60, "b" * 60]]},
                {"texts": "a"}, {"texts": [1]}, {"texts": [["a", 1]]}, {"text": ["a"]}, ["a"],
            ]  # fmt: skip
            responses = [await client.post("/rewrite", json=body) for body in bodies]
            many = await asyncio.gather(*(client.post("/", json={"texts": [text]}) for text in TEXTS))
            others = [await client.post("/predict", json={"texts": ["a"]}), await client.post("/rewrite", content=b"{")]
            full = await asyncio.gather(*(client.post("/rewrite", json={"texts": ["a"] * 3}) for _ in range(6)))
            return [responses, many, others, full]

    responses, many, others, full = asyncio.run(ask())
    assert responses[0].json() == {"rewrites": model.rewrite(TEXTS[:3])}
    assert responses[1].json() == {"rewrites": [*model.rewrite([["my order", "where"]]), "no"]}
    assert [response.status_code for response in responses[2:]] == [422] * 11
    assert all(set(response.json()) == {"error"} for response in responses[2:])
    assert [response.json()["rewrites"][0] for response in many] == model.rewrite(TEXTS)
    assert [response.status_code for response in others] == [424, 400]
    assert "POST /rewrite" in others[0].json()["error"]
    assert {response.status_code for response in full} == {200, 429}


def test_in_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANGAKD_MODEL", str(copier()))
    monkeypatch.delitem(sys.modules, "mangakd.runtime.aws_lambda", raising=False)
    module = importlib.import_module("mangakd.runtime.aws_lambda")
    assert module.handler({"texts": ["my refund"]}) == {"rewrites": ["my refund"]}
    event = {"requestContext": {"http": {"method": "POST", "path": "/rewrite"}}, "body": '{"texts": ["no"]}'}
    assert module.handler(event)["body"] == '{"rewrites": ["no"]}'
    monkeypatch.delitem(sys.modules, "mangakd.runtime.aws_lambda")


def test_the_schema_says_what_is_read() -> None:
    assert ROUTES["/rewrite"].schema["required"] == ["texts"] and HEAD.source
