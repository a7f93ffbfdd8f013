"""A front in this process: two sides that the test steers, asked through ASGI, with its background work running."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from rollout_rules import Clock, quick

from mangakd.runtime.rollout.front import Front
from mangakd.runtime.rollout.rollout import Rollout
from mangakd.runtime.watch import Watch


class Fake:
    """A service and a side at a time. gate: answers wait for it. fails: raises. asked: ids."""

    def __init__(self, label: str, status: int = 200):
        self.label, self.status, self.fails = label, status, False
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []
        self.received = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            self.asked.append(scope["mangakd.request_id"].decode())
            message = await receive()
            self.received += len(message.get("body", b""))
            while message.get("more_body"):
                message = await receive()
                self.received += len(message.get("body", b""))
            if self.gate is not None:
                await self.gate.wait()
            if self.fails:
                raise RuntimeError("broken")
        body = json.dumps({"predictions": [{"label": self.label}]}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        status = self.status if scope["method"] == "POST" else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class World:
    """What a test of the front needs."""

    def __init__(self, tmp_path: Path, **changes: Any):
        from mangakd.runtime.rollout.sides import AppSide

        self.student, self.incumbent, self.clock, self.draining = Fake("a"), Fake("a"), Clock(), False
        self.rollout = Rollout(quick(tmp_path, **changes), "student", self.clock)
        self.front = Front(self.student, AppSide(self.incumbent), self.rollout, lambda: self.draining, most=1000)
        self.app = Watch().around(self.front)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)  # type: ignore[arg-type]
        self.client = httpx.AsyncClient(transport=transport, base_url="http://front")

    async def ask(self, name: str, content: bytes = b'{"texts": ["x"]}') -> httpx.Response:
        await asyncio.sleep(0)  # as a network does, this lets the background work
        return await self.client.post("/predict", content=content, headers={"x-request-id": name})

    async def asks(self, count: int, start: int = 0) -> list[str]:
        """The side that answered each."""
        return [(await self.ask(f"q{i}")).headers["x-mangakd-side"] for i in range(start, start + count)]

    async def metrics(self) -> dict[str, float]:
        lines = (await self.client.get("/metrics")).text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("mangakd")}

    async def settle(self) -> None:
        """Until the background work is done."""
        for _ in range(20):
            await asyncio.sleep(0)
        while self.front._comparer.waiting:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def world(tmp_path: Path, **changes: Any) -> AsyncIterator[World]:
    one = World(tmp_path, **changes)
    one.front._comparer.start()
    try:
        yield one
    finally:
        await one.front._comparer.stop()
        one.rollout.journal.close()
