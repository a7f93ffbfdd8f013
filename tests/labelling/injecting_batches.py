"""The batch endpoints of the injecting server: files, batches and results of OpenAI, message batches of Anthropic.

A batch is created before its reply leaves, `batch_latency` seconds later, so that a kill in between leaves one that the client
does not know of. It ends `batch_seconds` after. Shares of its rows fail (`row_errors`) or expire (`row_expires`); they are not
billed. A row that two batches answer counts as paid twice: batches have no idempotency keys.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

Reply = tuple[int, bytes]


class Batches:
    def __init__(self, server: Any, options: dict[str, Any]) -> None:
        self.server, self.options = server, options
        self.files: dict[str, bytes] = {}
        self.all: dict[str, dict[str, Any]] = {}

    async def handle(self, method: str, path: str, body: bytes) -> Reply:
        anthropic = "/messages/" in path
        parts = path.strip("/").split("/")
        if method == "POST" and parts[-1] == "files":
            name = f"file-{len(self.files)}"
            self.files[name] = body.split(b'filename="')[1].split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
            return _json(
                {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"}
            )
        if parts[-1] == "content":
            return 200, self.files[parts[-2]]
        if parts[-1] == "results":
            return 200, self.files[f"out-{parts[-2]}"]
        if method == "POST":
            return await self.create(json.loads(body), anthropic)
        if parts[-1] == "batches":
            batches = [self.show(name, anthropic) for name in reversed(self.all)]
            return _json({"object": "list", "data": batches, "has_more": False, "first_id": None, "last_id": None})
        return _json(self.show(parts[-1], anthropic))

    async def create(self, content: dict[str, Any], anthropic: bool) -> Reply:
        name = f"batch-{len(self.all)}"
        if anthropic:
            requests = {each["custom_id"]: each["params"] for each in content["requests"]}
        else:
            lines = self.files[content["input_file_id"]].decode().splitlines()
            requests = {line["custom_id"]: line["body"] for line in map(json.loads, lines)}
        now = time.time()
        self.all[name] = {"requests": requests, "at": now, "metadata": content.get("metadata"), "ends": None}
        self.server.counts["batches"] += 1
        await asyncio.sleep(self.options.get("batch_latency", 0.0))
        return _json(self.show(name, anthropic))

    def show(self, name: str, anthropic: bool) -> dict[str, Any]:
        batch = self.all[name]
        ended = time.time() > batch["at"] + self.options.get("batch_seconds", 0.2)
        if ended and batch["ends"] is None:
            batch["ends"] = self.finish(name, anthropic)
        total = len(batch["requests"])
        if anthropic:
            counts = {"processing": 0 if ended else total, "succeeded": total if ended else 0, "errored": 0}
            times = {key: datetime.fromtimestamp(batch["at"], UTC).isoformat() for key in ("created_at", "expires_at")}
            state = "ended" if ended else "in_progress"
            return {
                "id": name, "type": "message_batch", "processing_status": state, **times,
                "results_url": f"/v1/messages/batches/{name}/results",
                "request_counts": {**counts, "canceled": 0, "expired": 0},
            }  # fmt: skip
        return {
            "id": name, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": "f",
            "status": "completed" if ended else "in_progress", "created_at": int(batch["at"]), "metadata": batch["metadata"],
            "request_counts": {"total": total, "completed": total if ended else 0, "failed": 0},
            "output_file_id": f"out-{name}" if ended else None, "error_file_id": f"err-{name}" if ended else None,
        }  # fmt: skip

    def finish(self, name: str, anthropic: bool) -> bool:
        good, bad = [], []
        for key, request in self.all[name]["requests"].items():
            number, text = self.server.chance.random(), json.dumps(request["messages"])
            errors, expires = self.options.get("row_errors", 0.0), self.options.get("row_expires", 0.0)
            if "REJECT" in text:
                bad.append(_wrong(key, 400, "invalid_request_error", anthropic))
            elif number < errors:
                bad.append(_wrong(key, 500, "api_error", anthropic))
            elif number < errors + expires:
                bad.append(_wrong(key, None, "expired", anthropic))
            else:
                self.server.cache.pop(key, None)  # answered anew, and billed anew
                reply = json.loads(self.server.billed(key, "/messages" if anthropic else "", request, text, ""))
                result: dict[str, Any] = {"response": {"status_code": 200, "body": reply}, "error": None}
                if anthropic:
                    result = {"result": {"type": "succeeded", "message": reply}}
                good.append({"custom_id": key, **result})
        self.server.counts["row_failures"] += len(bad)
        if anthropic:
            good, bad = good + bad, []
        for kind, rows in (("out", good), ("err", bad)):
            self.files[f"{kind}-{name}"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
        return True


def _wrong(key: str, status: int | None, kind: str, anthropic: bool) -> dict[str, Any]:
    if anthropic:
        error = {"type": "error", "error": {"type": kind, "message": "injected"}}
        result: dict[str, Any] = {"type": "expired"} if status is None else {"type": "errored", "error": error}
        return {"custom_id": key, "result": result}
    if status is None:
        return {"custom_id": key, "response": None, "error": {"code": "batch_expired", "message": "expired"}}
    return {"custom_id": key, "response": {"status_code": status, "body": {"error": {"message": kind}}}, "error": None}


def _json(content: dict[str, Any]) -> Reply:
    return 200, json.dumps(content).encode()
