"""A rollout of a language model: streams pass through, real processes answer, folders as incumbents are refused."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

try:
    import fastapi  # noqa: F401
    import gguf  # noqa: F401
    import httpx  # noqa: F401
    import psutil  # noqa: F401
    import uvicorn  # noqa: F401
    import xllamacpp  # noqa: F401
    import yaml
except ImportError as missing:
    pytest.skip(
        f"a served GGUF: pip install 'mangakd[serve-gguf,rollout]' gguf psutil ({missing})", allow_module_level=True
    )

from language_client import CHAT, events, language
from rollout_front import World, world
from rollout_rules import QUICK
from tiny_gguf import language_folder

from mangakd.core.errors import UserError
from mangakd.runtime.rollout.front import streams
from mangakd.runtime.rollout.journal import read_lines
from mangakd.runtime.rollout.start import prepare
from mangakd.runtime.service import Settings

STREAM = b'{"prompt": "x", "stream": true}'
WORDS = ("--context", "256", "--slots", "2")


# --- the front, by hand ----------------------------------------------------------------------------------------------


class Writer:
    """A service that writes two pieces, the second after its gate opens; `status` of 500 on writes none."""

    def __init__(self, status: int = 200, breaks: bool = False):
        self.gate, self.status, self.breaks = asyncio.Event(), status, breaks

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == STREAM
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await self.gate.wait()
        if self.breaks:
            raise RuntimeError("broken")
        await send({"type": "http.response.body", "body": b"two", "more_body": False})


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    """A language model's service without a first token: it answers once its client has gone."""
    await receive()
    assert (await receive())["type"] == "http.disconnect"
    await send({"type": "http.response.start", "status": 499, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def asked(one: World, student: Any, incumbent: Any, leaves: bool = False) -> "asyncio.Queue[Any]":
    """A question with a stream, from a client that stays or leaves; the queue of what it gets."""
    one.front._asking._sides["student"]._app, one.front._asking._sides["incumbent"]._app = student, incumbent
    got: asyncio.Queue[Any] = asyncio.Queue()
    messages = [{"type": "http.request", "body": STREAM, "more_body": False}]
    if leaves:
        messages.insert(0, {"type": "http.disconnect"})

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "mangakd.request_id": b"q"}
    task = asyncio.ensure_future(one.front(scope, receive, got.put))
    task.add_done_callback(lambda done: got.put_nowait(done.exception()))
    return got


def play(scene: Any, tmp_path: Path, **changes: Any) -> None:
    async def within() -> None:
        async with world(tmp_path, **{"steps": (1.0,), **changes}) as one:
            await asyncio.wait_for(scene(one), 10)

    asyncio.run(within())


def test_the_first_piece_arrives_while_the_second_is_written(tmp_path: Path) -> None:
    async def scene(one: World) -> None:
        student = Writer()
        got = asked(one, student, Writer())
        begin, piece = await got.get(), await got.get()
        assert (b"x-mangakd-side", b"student") in begin["headers"] and piece["body"] == b"one"
        assert got.empty()
        student.gate.set()
        assert (await got.get())["body"] == b"two" and await got.get() is None
        assert one.rollout.plan.counts["student"] == 1 and one.rollout.plan.counts["student_errors"] == 0
        assert one.rollout.plan.counts["compared"] == 0

    play(scene, tmp_path)


def test_a_stream_that_does_not_begin_is_answered_by_the_other_side(tmp_path: Path) -> None:
    async def scene(one: World) -> None:
        incumbent = Writer()
        incumbent.gate.set()
        failing = Writer(status=500)
        failing.gate.set()
        got = asked(one, failing, incumbent)
        begin = await got.get()
        assert begin["status"] == 200 and (b"x-mangakd-side", b"incumbent") in begin["headers"]
        assert [(await got.get())["body"] for _ in range(2)] == [b"one", b"two"]
        assert await got.get() is None
        assert one.rollout.plan.counts["student_errors"] == 1 and one.rollout.plan.counts["incumbent"] == 1
        one.rollout.plan.counts["student_errors"] = 0
        both = asked(one, failing, failing)
        assert (await both.get())["status"] == 503

    play(scene, tmp_path)


def test_the_timeout_is_for_the_beginning_and_a_break_is_an_error(tmp_path: Path) -> None:
    async def scene(one: World) -> None:
        student = Writer(breaks=True)
        got = asked(one, student, Writer())
        await got.get()
        await asyncio.sleep(0.3)  # beyond the timeout of 0.2
        student.gate.set()
        assert (await got.get())["body"] == b"one" and await got.get() is None
        assert one.rollout.plan.counts["student_errors"] == 1 and one.rollout.plan.counts["incumbent"] == 0

    play(scene, tmp_path, timeout=0.2)


@pytest.mark.parametrize("first", [hangs, Writer(status=500)], ids=["student", "incumbent"])
def test_a_client_that_leaves_before_an_answer_says_nothing_about_a_side(first: Any, tmp_path: Path) -> None:
    """Neither a success nor an error: a model that hangs would pass the errors' test by its impatient clients."""

    async def scene(one: World) -> None:
        if isinstance(first, Writer):
            first.gate.set()
        got = asked(one, first, hangs, leaves=True)
        while await got.get() is not None:
            pass
        counts, tests = one.rollout.plan.counts, one.rollout.plan.tests
        assert (counts["student"], counts["incumbent"]) == (int(first is not hangs), 0) and tests["errors"].n == 0

    play(scene, tmp_path)


def test_what_streams() -> None:
    assert streams(STREAM) and streams(b'{"stream" : true}')
    for body in (b'{"stream": false}', b'{"prompt": "\\"stream\\": true"}', b'["stream"]', b'{"stream": true', b"\xff"):
        assert not streams(body)


# --- real processes --------------------------------------------------------------------------------------------------


def test_two_language_models_complete_a_rollout(tmp_path: Path) -> None:
    """The same weights on both sides agree on every greedy text; both are asked, and streams of both come through."""
    folder = language_folder(tmp_path / "best", context=256)
    rules = {"steps": [0.5, 1.0], "compare": 1.0, "every": 0.2, "timeout": 30, "log": str(tmp_path / "rollout.jsonl")}
    quality = {
        "agreement": vars(QUICK["agreement"]),
        "errors": vars(QUICK["errors"]),
        "step": {"samples": 10, "seconds": 0},
    }
    question = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0}
    with language(folder, tmp_path / "incumbent.log", *WORDS) as (incumbent, _):
        file = tmp_path / "rollout.yaml"
        file.write_text(yaml.safe_dump({**rules, **quality, "incumbent": incumbent.url}))
        with language(folder, tmp_path / "student.log", *WORDS, f"rollout={file}") as (process, client):
            sides, streams_of = set(), set()
            for i in range(120):
                answer = client.post(CHAT, json=question, headers={"x-request-id": f"q{i}"})
                assert answer.status_code == 200, answer.text
                sides.add(answer.headers["x-mangakd-side"])
                if i < 8:
                    body = {**question, "stream": True}
                    with client.stream("POST", CHAT, json=body, headers={"x-request-id": f"q{i}"}) as stream:
                        streams_of.add(stream.headers["x-mangakd-side"])
                        *_, done = events(stream)
                    assert done == "[DONE]"
                if any(line.get("decision") == "complete" for line in read_lines(tmp_path / "rollout.jsonl")):
                    break
            assert sides == streams_of == {"student", "incumbent"}
            lines = read_lines(tmp_path / "rollout.jsonl")
            assert [line["decision"] for line in lines if line["event"] == "decision"] == ["raise", "complete"]
            metrics = client.get("/metrics").text
            assert 'mangakd_rollout_compared_total{result="disagreed"} 0' in metrics
            assert process.end(signal.SIGTERM) == 0


def test_a_folder_as_the_incumbent_of_a_language_model_is_refused(tmp_path: Path) -> None:
    folder = language_folder(tmp_path / "best", context=256)
    file = tmp_path / "rollout.yaml"
    file.write_text(json.dumps({"incumbent": str(folder), "log": str(tmp_path / "log.jsonl")}))
    with pytest.raises(
        UserError, match=r"is a folder, and the student .* is a language model, whose engine runs alone"
    ):
        prepare(str(file), None, str(folder), Settings(), 1)


def test_the_incumbent_streams_by_http(tmp_path: Path) -> None:
    """UrlSide against a real service."""
    from mangakd.runtime.rollout.sides import Question, UrlSide

    folder = language_folder(tmp_path / "best", context=256)
    body = {"prompt": "hi", "max_tokens": 4, "temperature": 0, "stream": True}
    with language(folder, tmp_path / "log", *WORDS) as (process, client):
        got: list[Any] = []

        async def ask() -> int:
            side, never = UrlSide(process.url, 30), asyncio.get_running_loop().create_future
            scope = {"path": "/v1/completions", "headers": [(b"content-type", b"application/json")]}

            async def receive() -> Any:
                return await never()

            async def send(message: Any) -> None:
                got.append(message)

            try:
                return await side.stream(Question(scope, json.dumps(body).encode(), "q"), receive, send)
            finally:
                await side.stop()

        assert asyncio.run(ask()) == 200
        text = b"".join(message.get("body", b"") for message in got).decode()
        assert text.rstrip().endswith("data: [DONE]") and got[-1] == {
            "type": "http.response.body", "body": b"", "more_body": False,
        }  # fmt: skip
        own = [line for line in client.post("/v1/completions", json=body).text.splitlines() if '"text"' in line]
        tokens = [json.loads(line[6:])["choices"][0]["text"] for line in own]
        assert tokens == [json.loads(x[6:])["choices"][0]["text"] for x in text.splitlines() if '"text"' in x]
