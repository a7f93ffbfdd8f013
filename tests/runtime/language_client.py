"""A served language model for tests: starts the command, asks it, and finds its engine's process."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from serving_client import Process, served

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
Body = dict[str, Any]


@contextlib.contextmanager
def language(folder: Path, log: Path, *words: str) -> Iterator[tuple[Process, httpx.Client]]:
    with (
        served(folder, log, "--linger", "0", *words) as process,
        httpx.Client(base_url=process.url, timeout=60) as client,
    ):
        yield process, client


def engine_of(process: Process) -> psutil.Process:
    (child,) = psutil.Process(process.popen.pid).children()
    return child


def events(response: httpx.Response) -> Iterator[Any]:
    """The JSON of each event, and "[DONE]"."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield line[6:] if line == "data: [DONE]" else json.loads(line[6:])


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.split()[0] == name))


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def forever(prompt: str = "hi", **entries: Any) -> Body:
    """A question whose answer takes minutes. It needs --context and --max-tokens of FOREVER."""
    return {"prompt": prompt, "temperature": 0, "max_tokens": 60_000, "stream": True, **entries}


FOREVER = ("--context", "65536", "--max-tokens", "60000", "--slots", "1")
