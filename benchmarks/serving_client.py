"""A client of the service for benchmarks and tests: starts the service, and sends valid and malformed bodies.

Everything stays on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

SERVE = Path(__file__).resolve().parents[1] / "scripts" / "serve.py"
# Variables that keep threads from spinning.
QUIET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS")
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
PATIENCE = 60  # seconds for a start or an end; much more than either takes
STATUSES = (200, 400, 413, 422)  # what a strange body may get


class Process:
    """scripts/serve.py, or the command line `script`, on a free port of 127.0.0.1, in the environment of a user who sets nothing.

    `lines`: its log, parsed; whole once it has ended.
    """

    def __init__(self, folder: Path, log: Path, *words: str, script: tuple[str, ...] = (str(SERVE),)):
        self._log = log
        with log.open("wb") as out:
            command = [sys.executable, *script, str(folder), "--port", "0", *words]
            environment = {key: value for key, value in os.environ.items() if key not in QUIET} | {
                "PYTHONUNBUFFERED": "1"
            }
            self.popen = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        start = time.perf_counter()
        self.url = self._wait_for_url()
        self.seconds_to_start = time.perf_counter() - start

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def end(self, sign: int = signal.SIGTERM) -> int:
        """Its exit status after `sign`."""
        if self.popen.poll() is None:
            self.popen.send_signal(sign)
        return self.popen.wait(PATIENCE)

    def _wait_for_url(self) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.popen.poll() is None:
            if match := re.search(r"http://127\.0\.0\.1:\d+", self.text):
                return match.group()
            time.sleep(0.02)
        self.popen.kill()
        raise RuntimeError(f"the service did not start:\n{self.text}")


@contextlib.contextmanager
def served(folder: Path, log: Path, *words: str, **more: Any) -> Iterator[Process]:
    process = Process(folder, log, *words, **more)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait(PATIENCE)


class Connection:
    """One kept-alive connection that asks one question at a time.

    The class is hand-written, because httpx takes more CPU time for a request than the service, and both share the cores.
    """

    def __init__(self, url: str):
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, texts: list[str], request_id: str = "", **more: Any) -> tuple[int, bytes]:
        """(status, body). Raises ConnectionRefusedError when the port is closed, EOFError or OSError for a lost question."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        body = json.dumps({"texts": texts, **more}).encode()
        name = f"x-request-id: {request_id}\r\n".encode() if request_id else b""
        writer.write(HEAD % (len(body), name) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"\ncontent-length: (\d+)", head)
        assert length, head
        answer = await reader.readexactly(int(length[1]))
        if "\nconnection: close" in head:
            self.close()
        return int(head.split()[1]), answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def strange_bodies(count: int, seed: int = 0) -> Iterator[bytes]:
    """JSON that is no question, questions that go over a limit, right ones with any Unicode, broken JSON, and plain noise."""
    chance = random.Random(seed)
    for _ in range(count):
        yield chance.choice((_right, _wrong_shape, _broken, _noise, _extreme))(chance)


def fuzz(url: str, bodies: Iterator[bytes]) -> dict[int, int]:
    """The number of answers with each status. Raises AssertionError for a status outside STATUSES, or no JSON."""
    counts: dict[int, int] = {}
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        for body in bodies:
            answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
            counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
            assert answer.status_code in STATUSES, (answer.status_code, answer.text, body[:500])
            assert ("predictions" if answer.status_code == 200 else "error") in answer.json(), (answer.text, body[:500])
    return counts


def _unicode(chance: random.Random, longest: int = 40) -> str:
    """Any code points, lone surrogates and NUL among them."""
    kinds = (
        lambda: chance.randrange(0x110000),
        lambda: chance.randrange(128),
        lambda: chance.randrange(0xD800, 0xE000),
    )
    return "".join(chr(chance.choice(kinds)()) for _ in range(chance.randrange(longest)))


def _right(chance: random.Random) -> bytes:
    texts = [_unicode(chance) for _ in range(chance.randrange(1, 5))]
    return json.dumps({"texts": texts, **({"top": chance.randrange(1, 9)} if chance.random() < 0.5 else {})}).encode()


def _value(chance: random.Random, depth: int = 0) -> Any:
    plain = [None, True, False, 0, -1, 1e308, float("nan"), float("inf"), 10**30, "", "texts", _unicode(chance)]
    if depth > 3 or chance.random() < 0.5:
        return chance.choice(plain)
    if chance.random() < 0.5:
        return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {_unicode(chance, 6): _value(chance, depth + 1) for _ in range(chance.randrange(4))}


def _wrong_shape(chance: random.Random) -> bytes:
    content = _value(chance)
    if chance.random() < 0.7:
        content = {"texts": _value(chance), chance.choice(("top", "text", "Texts", _unicode(chance))): _value(chance)}
    return json.dumps(content).encode()


def _broken(chance: random.Random) -> bytes:
    body = bytearray(_right(chance))
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(body))
        body[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        body = body or bytearray(b"{")
    return bytes(body)


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(200))


def _extreme(chance: random.Random) -> bytes:
    return chance.choice((
        b"[" * 5000, b'{"a":' * 5000, b"9" * 6000, b'{"texts": [' + b"1" * 5000 + b"]}", b"\xef\xbb\xbf{}", b"",
        '{"texts": ["où"]}'.encode("utf-16"), json.dumps({"texts": ["x"] * 65}).encode(),
        json.dumps({"texts": ["é" * 20_001]}).encode(), json.dumps({"texts": ["word " * 3000]}).encode(),
        b'{"texts": ["a"], "texts": 3}', b'{"texts": ["a"], "top": 1' + b"0" * 4000 + b"}", b" " * 1_000_001,
    ))  # fmt: skip
