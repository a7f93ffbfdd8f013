"""scripts/serve.py from outside: how it ends, and what it says when it cannot start."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

try:
    import fastapi  # noqa: F401
    import httpx
    import uvicorn
except ImportError as missing:
    pytest.skip(f"the service and its client: pip install fastapi uvicorn httpx ({missing})", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from made_variant import copied, variant
from serving_client import SERVE, served

from mangakd.runtime import Model
from mangakd.runtime.manifest import read
from mangakd.runtime.server import PATIENCE, Server
from mangakd.runtime.service import create_app


def said(*words: str) -> str:
    done = subprocess.run([sys.executable, SERVE, *words], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode and "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, sign: signal.Signals) -> None:
    """Questions that wait are answered, new ones are refused, /health says so, the process ends with 0."""
    gate, script = tmp_path / "gate", str(Path(__file__).parent / "gated_serve.py")
    gate.touch()
    with (
        served(variant(), tmp_path / "log", "--linger", "2.5", script=(script, str(gate))) as process,
        httpx.Client(base_url=process.url, timeout=30) as client,
    ):
        with ThreadPoolExecutor(3) as pool:
            waiting = []
            for count, line in ((1, "mangakd_computing_texts 1"), (2, "mangakd_queue_texts 2")):
                for _ in range(count):
                    waiting.append(pool.submit(client.post, "/predict", json={"texts": ["order " * 100]}))
                while line not in client.get("/metrics").text:
                    assert not any(one.done() for one in waiting)
            process.popen.send_signal(sign)
            while (health := client.get("/health")).status_code == 200:
                time.sleep(0.01)
            assert health.status_code == 503 and health.json()["status"] == "draining"
            refused = client.post("/predict", json={"texts": ["order"]})
            assert refused.status_code == 503 and "shutting down" in refused.json()["error"]
            assert "mangakd_ready 0" in client.get("/metrics").text
            assert not any(one.done() for one in waiting)
            gate.unlink()
            assert [one.result().status_code for one in waiting] == [200] * 3
        assert process.popen.wait(20) == 0
        with pytest.raises(httpx.ConnectError):
            client.get("/health")
    assert "traceback" not in process.text.lower()


def test_a_second_signal_ends_it_now(tmp_path: Path) -> None:
    with served(variant(), tmp_path / "log", "--linger", "600") as process:
        process.popen.send_signal(signal.SIGTERM)
        while httpx.get(process.url + "/health").status_code == 200:
            time.sleep(0.01)
        start = time.monotonic()
        process.end()
        assert time.monotonic() - start < 20


def test_a_client_that_never_reads_does_not_hold_it_for_ever() -> None:
    service = create_app(Model(read(variant()), None, None)).state.service  # type: ignore[arg-type]
    server = Server(uvicorn.Config(lambda: None), service, linger=1)
    service.watch.open = 1

    def ends(after: float) -> bool:
        server._stop_time = time.monotonic() - after
        return asyncio.run(server.on_tick(1))

    assert not ends(1000)  # no signal yet
    service.draining = True
    assert not ends(0.5) and not ends(20) and ends(1 + PATIENCE)


def test_a_tampered_folder_is_refused(tmp_path: Path) -> None:
    folder = copied(variant(), tmp_path)
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-100] ^= 1
    (folder / "model.onnx").write_bytes(content)
    assert "is not the file that was exported" in said(str(folder), "--port", "0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: folder"),
        (("nowhere", "--port", "0"), "nowhere has no manifest.json"),
        (("x", "--threads", "0"), "0: give a number from 1"),
        (("x", "--port", "99999"), "give a number from 0 to 65535"),
        (("x", "--host", "192.0.2.1"), "--host 192.0.2.1 --port 8000 cannot be opened"),
        (("x", "--queue", "many"), "invalid number value: 'many'"),
        (("x", "--port", "0", "--queue", "3"), "a queue of 3 texts could never take a question of 64"),
        (("x", "port=0", "max_texts=70", "queue=3"), "a queue of 3 texts could never take a question of 70"),
        (("x", "no_key=1"), "unrecognized arguments: --no-key=1"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], message: str) -> None:
    assert message in said(*words)


def test_a_port_that_is_taken_is_named_before_the_folder_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"--host 127.0.0.1 --port {port} cannot be opened: Address already in use" in said(
            "x", "--port", str(port)
        )
