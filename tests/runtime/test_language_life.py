"""How a served language model starts, drains, loses its engine and ends, by real processes."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

try:
    import fastapi  # noqa: F401
    import gguf  # noqa: F401
    import httpx
    import psutil
    import uvicorn  # noqa: F401
    import xllamacpp
except ImportError as missing:
    pytest.skip(f"a served GGUF: pip install 'mangakd[serve-gguf]' gguf psutil ({missing})", allow_module_level=True)

from language_client import CHAT, COMPLETE, FOREVER, engine_of, events, forever, language, metric, until
from serving_client import SERVE
from tiny_gguf import describe, language_folder

from mangakd.core.errors import UserError
from mangakd.runtime import language_manifest
from mangakd.runtime.language_child import parameters
from mangakd.runtime.language_engine import Engine
from mangakd.runtime.language_serve import engine_settings
from mangakd.runtime.language_service import LanguageService, LanguageSettings, create_language_app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_folder(tmp_path_factory.mktemp("gguf") / "best", context=65536)


def test_a_signal_drains_a_running_stream(folder: Path, tmp_path: Path) -> None:
    words = ("--context", "2048", "--max-tokens", "1000", "--slots", "1")
    with language(folder, tmp_path / "log", *words) as (process, client):
        engine = engine_of(process)
        with client.stream("POST", COMPLETE, json=forever(max_tokens=1000)) as answer:
            chunks = events(answer)
            next(chunks)
            engine.send_signal(signal.SIGTERM)  # a service manager signals every process
            engine.send_signal(signal.SIGINT)
            process.popen.terminate()
            with httpx.Client(base_url=process.url) as other:
                until(lambda: other.get("/health").json()["status"] == "draining")
                refused = other.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
                assert refused.status_code == 503 and refused.json()["error"]["type"] == "server_error"
            *_, last, done = chunks
        assert done == "[DONE]" and last["usage"]["completion_tokens"] == 1000
        assert process.popen.wait(30) == 0
        until(lambda: not engine.is_running())
    assert "Traceback" not in process.text


def test_patience_ends_a_stream_that_is_too_long(folder: Path, tmp_path: Path) -> None:
    with language(folder, tmp_path / "log", *FOREVER, "--patience", "0.5") as (process, client):
        engine = engine_of(process)
        with pytest.raises(httpx.TransportError), client.stream("POST", COMPLETE, json=forever()) as answer:
            for i, _ in enumerate(events(answer)):
                if i == 0:
                    process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(30) == 0
        until(lambda: not engine.is_running())


def test_the_engine_ends_with_a_killed_parent(folder: Path, tmp_path: Path) -> None:
    with language(folder, tmp_path / "log", "--context", "256") as (process, _):
        engine = engine_of(process)
        process.popen.kill()
        until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)


def test_a_dead_engine_is_started_again(folder: Path, tmp_path: Path) -> None:
    with language(folder, tmp_path / "log", *FOREVER) as (process, client):
        engine, health = engine_of(process), httpx.Client(base_url=process.url)
        with client.stream("POST", COMPLETE, json=forever()) as answer:
            chunks = events(answer)
            next(chunks)
            engine.kill()
            *_, last = chunks
            assert last["error"]["type"] == "server_error" and "engine ended" in last["error"]["message"]
        states, answers = list[str](), list[int]()

        def restarted() -> bool:
            states.append(health.get("/health").json()["status"])
            answers.append(client.post(COMPLETE, json={"prompt": "a", "max_tokens": 2}).status_code)
            return metric(client, "mangakd_engine_restarts_total") == 1 and states[-1] == "ready"

        until(restarted)
        assert "restarting" in states and 503 in answers and {*answers} <= {200, 503}
        assert client.post(COMPLETE, json={"prompt": "a", "max_tokens": 2}).json()["usage"]["completion_tokens"] == 2
        assert metric(client, "mangakd_engine_restarts_total") == 1
        assert process.end() == 0
    deaths = [line for line in process.lines if line["message"] == "engine died"]
    assert deaths[0]["reason"] == "signal SIGKILL" and deaths[0]["restart_in_seconds"] == 1


@pytest.mark.parametrize("says", ["http://127.0.0.1:9", "nothing"])
def test_an_engine_that_dies_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Whether it dies after its start or before it."""
    pauses, wait = list[float](), asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await wait(0)

    async def scene() -> Engine:
        engine = Engine({})
        engine._words = [sys.executable, "-c", f"import sys; print({says!r}, flush=True); sys.exit('no memory')"]
        with contextlib.suppress(UserError):
            await engine.start()
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await asyncio.wait_for(engine.keep(), 60)
        return engine

    engine = asyncio.run(scene())
    assert pauses == [1, 2, 4, 8, 16] and engine.restarts.values[()] == 5 and engine.address is None
    assert engine.failure == "llama.cpp died 6 times in a row: no memory (exit status 1)"


def said(*words: str) -> str:
    done = subprocess.run([sys.executable, SERVE, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_what_cannot_be_served_is_refused_with_what_to_use(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.gguf").write_bytes((folder / "model.gguf").read_bytes()[:5000])
    damaged = describe(tmp_path / "damaged", tmp_path / "damaged" / "model.gguf")
    assert "llama.cpp cannot serve the model" in said(str(damaged), "--port", "0")
    for engine, other in (("transformers", "vllm serve"), ("openvino", "OpenVINO Model Server")):
        (tmp_path / engine).mkdir()
        file = tmp_path / engine / "model.gguf"
        file.write_bytes(b"x")
        assert other in said(str(describe(tmp_path / engine, file, engine=engine)), "--port", "0")
    assert "at most 65536 tokens" in said(str(folder), "--port", "0", "--context", "70000")


def test_settings_of_the_manifest_reach_llama_cpp(tmp_path: Path) -> None:
    runtime = {"threads": 3, "n_ubatch": 64, "sampling.top_k": 7}
    manifest = language_manifest.read(language_folder(tmp_path / "best", runtime=runtime, context=300))
    settings = engine_settings(manifest, None, slots=2, threads=None)
    params = parameters(xllamacpp.CommonParams(), **settings)
    assert (params.n_ctx, params.n_parallel, params.cpuparams.n_threads) == (600, 2, 3)
    assert (params.n_ubatch, params.sampling.top_k) == (64, 7)
    assert params.cache_ram_mib == 0 and params.endpoint_slots is False and params.port == 0
    with pytest.raises(AttributeError):
        parameters(xllamacpp.CommonParams(), **(settings | {"runtime": {"n_ubach": 64}}))
    assert engine_settings(manifest, 100, 1, 2)["threads"] == 2
    with pytest.raises(UserError, match="at most 300 tokens"):
        engine_settings(manifest, 301, 1, None)


class _NoEngine:
    address: str | None = "http://127.0.0.1:9"  # nothing listens
    restarts: Any = None


async def _asked(service: LanguageService, path: str, content: Any) -> httpx.Response:
    transport = httpx.ASGITransport(create_language_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.post(path, content=content)


def test_bodies_that_stop_engines_that_are_gone_and_no_template(tmp_path: Path) -> None:
    manifest = language_manifest.read(language_folder(tmp_path / "best", template=None))

    async def half() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    def status(path: str, content: Any) -> tuple[int, str]:
        service = LanguageService(manifest, _NoEngine(), LanguageSettings(body_seconds=0.2))  # type: ignore[arg-type]
        answer = asyncio.run(_asked(service, path, content))
        return answer.status_code, answer.json()["error"]["message"]

    assert status(COMPLETE, half()) == (408, "the body did not arrive in 0.2 s.")
    assert status(COMPLETE, b'{"prompt": "a"}')[0] == 503
    code, message = status(CHAT, b'{"messages": [{"role": "user", "content": "a"}]}')
    assert code == 400 and "no chat template" in message
