"""A real HTTP server that speaks OpenAI's and Anthropic's wire formats, does wrong on purpose, and bills.

    python injecting_server.py '{"seed": 1, "faults": {"429": 0.05, …}, "latency": 0.0}'

prints its port. It honours Idempotency-Key: a request with the key of one that was billed gets the same answer and no bill.
GET /bill says what was billed, by idempotency key, and what came. Standard library only: it starts at once.

faults: probability of each of
    429 (without Retry-After), 429_after (with 0.05 s), 500, 529, hang (no answer), refuse (HTTP 400 for this prompt),
    cut (a body that ends early), truncated (JSON without its end, Content-Length right), drip (slow chunks), reset (connection
    closed), wrong_usage, no_usage, drip_forever. Those after the comma are billed: the model has written its answer.
A fault of one request is drawn anew at each attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from collections import Counter
from typing import Any

from injecting_batches import Batches

BILLED = ("cut", "truncated", "drip", "reset_after", "wrong_usage", "no_usage")
KEY = "Bearer "


class Bucket:
    """Requests a minute, with room for a second's worth."""

    def __init__(self, limit: float) -> None:
        self.limit, self.level, self.at = limit, limit / 60, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self.level = min(self.level + (now - self.at) * self.limit / 60, self.limit / 60)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Server:
    def __init__(self, options: dict[str, Any]) -> None:
        self.faults = options.get("faults", {})
        self.latency = options.get("latency", 0.0)
        self.chance = random.Random(options.get("seed", 0))
        self.bucket = Bucket(options["limit"]) if "limit" in options else None
        self.needs = options.get("key")
        self.refuse_all = options.get("refuse_all")
        self.bill: dict[str, dict[str, Any]] = {}
        self.cache: dict[str, bytes] = {}
        self.paid_twice = 0
        self.counts: Counter[str] = Counter()
        self.batches = Batches(self, options)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest if each)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path == "/bill":
            content = {
                "bill": self.bill, "counts": self.counts, "paid_twice": self.paid_twice, "batches": len(self.batches.all),
            }  # fmt: skip
            self.send(writer, 200, json.dumps(content).encode())
            return True
        self.counts["requests"] += 1
        if "/files" in path or "/batches" in path:
            status, content = await self.batches.handle(method, path.partition("?")[0], body)
            self.send(writer, status, content)
            return True
        return await self.answer(path, headers, body, writer)

    async def answer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        secret = headers.get("x-api-key") or headers.get("authorization", "").removeprefix(KEY)
        if self.needs and secret != self.needs and not path.endswith("/converse"):  # signed, not sent
            self.error(writer, path, 401, f"Incorrect API key provided: {secret}")
            return True
        limits = {}
        if self.bucket is not None:
            good = self.bucket.take()
            names = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests")
            if "messages" in path:
                names = ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining")
            limits = dict(zip(names, (f"{self.bucket.limit:g}", f"{int(self.bucket.level)}"), strict=True))
            if not good:
                self.counts["over_limit"] += 1
                self.error(writer, path, 429, "rate limit", {"retry-after-ms": "50", **limits})
                return True
        request = json.loads(body)
        text = json.dumps(request["messages"])
        if self.refuse_all or "REJECT" in text:
            self.error(writer, path, 400, f"this prompt is refused; your key is {secret}")
            return True
        key = headers.get("idempotency-key") or f"none-{self.counts['requests']}"  # Bedrock has no such keys
        fault = self.draw() if key not in self.bill else ""
        self.counts[fault or "good"] += 1
        if fault in ("429", "500", "529", "429_after"):
            more = {"retry-after": "0.05"} if fault == "429_after" else {}
            self.error(writer, path, int(fault[:3]), f"injected; your key is {secret}", {**more, **limits})
            return True
        if fault == "hang":
            await asyncio.sleep(30)
            return False
        if fault == "reset":
            return False
        await asyncio.sleep(self.latency)
        reply = self.billed(key, path, request, text, fault)
        return await self.deliver(writer, reply, fault, limits)

    def draw(self) -> str:
        number = self.chance.random()
        for name, share in self.faults.items():
            if (number := number - share) < 0:
                return str(name)
        return ""

    def billed(self, key: str, path: str, request: dict[str, Any], text: str, fault: str) -> bytes:
        """The answer, billed once for each idempotency key."""
        if key in self.cache:
            self.counts["replayed"] += 1
            return self.cache[key]
        words = hashlib.sha256(text.encode()).hexdigest()
        prompt, out = len(text) // 4, 4 + int(words[0], 16)
        answer = f"answer {words[:8]}" + (f", and your key is {self.needs}" if "ECHO" in text else "")
        usage: dict[str, Any] | None = {"in": prompt, "out": out}
        if fault == "wrong_usage":
            usage = {"in": -5, "out": 10**9}
        elif fault == "no_usage":
            usage = None
        make = anthropic if "messages" in path else converse if path.endswith("/converse") else openai
        reply = json.dumps(make(answer, usage, "FORBIDDEN" in text)).encode()
        if key in self.bill:
            self.paid_twice += 1
        self.bill[key] = {"in": prompt, "out": out, "usage": usage is not None and usage["out"] == out}
        self.cache[key] = reply
        return reply

    async def deliver(self, writer: asyncio.StreamWriter, reply: bytes, fault: str, limits: dict[str, str]) -> bool:
        if fault == "truncated":
            self.send(writer, 200, reply[: len(reply) // 2], limits)
            return True
        if fault == "reset_after":
            return False
        if fault in ("cut", "drip", "drip_forever"):
            self.start(writer, 200, len(reply), limits)
            step = max(len(reply) // 4, 1)
            for start in range(0, len(reply), step):
                if fault == "cut" and start >= step:
                    return False
                writer.write(reply[start : start + step])
                await writer.drain()
                await asyncio.sleep(0.02 if fault != "drip_forever" else 5)
            return True
        self.send(writer, 200, reply, limits)
        return True

    def error(
        self, writer: asyncio.StreamWriter, path: str, status: int, message: str, more: dict[str, str] | None = None
    ) -> None:
        content: dict[str, Any] = {"error": {"message": message, "type": "injected", "code": None}}
        if "messages" in path:
            content = {"type": "error", **content}
        if path.endswith("/converse"):
            names = {400: "ValidationException", 429: "ThrottlingException", 500: "InternalServerException"}
            content, more = {"message": message}, {**(more or {}), "x-amzn-errortype": names.get(status, "Other")}
        self.send(writer, status, json.dumps(content).encode(), more or {})

    def send(self, writer: asyncio.StreamWriter, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.start(writer, status, len(body), more or {})
        writer.write(body)

    def start(self, writer: asyncio.StreamWriter, status: int, size: int, more: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {size}"]
        lines += [f"{name}: {value}" for name, value in more.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())


def openai(answer: str, usage: dict[str, int] | None, refused: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": None if refused else answer, "refusal": "no" if refused else None}
    content: dict[str, Any] = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }  # fmt: skip
    if usage is not None:
        content["usage"] = {"prompt_tokens": usage["in"], "completion_tokens": usage["out"], "total_tokens": 0}
    return content


def anthropic(answer: str, usage: dict[str, int] | None, refused: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
        "content": [{"type": "text", "text": answer}], "stop_reason": "refusal" if refused else "end_turn",
    }  # fmt: skip
    if usage is not None:
        content["usage"] = {"input_tokens": usage["in"], "output_tokens": usage["out"]}
    return content


def converse(answer: str, usage: dict[str, int] | None, refused: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "output": {"message": {"role": "assistant", "content": [{"text": answer}]}},
        "stopReason": "content_filtered" if refused else "end_turn", "metrics": {"latencyMs": 1},
    }  # fmt: skip
    if usage is not None:
        content["usage"] = {"inputTokens": usage["in"], "outputTokens": usage["out"], "totalTokens": 0}
    return content


async def main() -> None:
    own = Server(json.loads(sys.argv[1]))
    server = await asyncio.start_server(own.handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
