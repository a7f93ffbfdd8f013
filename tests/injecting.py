"""The injecting server as a process of its own, and keys that nothing may write down."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SECRET = "sk-test-0123456789-never-write-this"
SERVER = Path(__file__).parent / "labelling" / "injecting_server.py"


@dataclass
class Injecting:
    port: int
    process: subprocess.Popen[str]

    def base_url(self, provider: str) -> str:
        return f"http://127.0.0.1:{self.port}" + ("/v1" if provider == "openai" else "")

    @property
    def bill(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/bill") as reply:
            return json.load(reply)  # type: ignore[no-any-return]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Injecting]]:
    """serve(faults={…}, latency=0.05, …) starts a server."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    processes = []

    def start(**options: Any) -> Injecting:
        words = [sys.executable, str(SERVER), json.dumps({"key": SECRET, **options})]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return Injecting(int(process.stdout.readline()), process)

    yield start
    for process in processes:
        process.kill()
        process.wait()
