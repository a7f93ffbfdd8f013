"""One side of label_throughput.py as a process of its own: asks N prompts, prints the seconds until the last answer.

    python benchmarks/label_side.py '{"side": "mangakd", "base_url": …, "prompts": 1000, "concurrency": 32, "folder": …}'

side: `mangakd` (ledger, limits, retries), or `plain`: the official client with asyncio and a semaphore, as in a short script.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from mangakd.labelling.api.provider import openai
from mangakd.labelling.provider import Request
from mangakd.models.sampling import Sampling


def mangakd(base_url: str, prompts: int, concurrency: int, folder: str) -> float:
    api = openai(model="m", base_url=base_url, concurrency=concurrency, ledger=Path(folder) / "ledger.sqlite")
    requests = [Request((("user", f"prompt {i}"),), i) for i in range(prompts)]
    api.wire.prepare()
    start = time.perf_counter()
    with api.opened(requests, Sampling()) as ledger:
        assert api.ask(ledger, Sampling()) is None
        answers = sum(answer is not None for chunk in api.recorded(ledger) for answer in chunk)
    seconds = time.perf_counter() - start
    assert answers == prompts
    return seconds


async def plain(base_url: str, prompts: int, concurrency: int) -> float:
    from openai import AsyncOpenAI

    client, gate = AsyncOpenAI(base_url=base_url, api_key="none"), asyncio.Semaphore(concurrency)

    async def ask(i: int) -> str:
        async with gate:
            reply = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": f"prompt {i}"}], max_tokens=256, temperature=0.0
            )
            return reply.choices[0].message.content or ""

    start = time.perf_counter()
    texts = await asyncio.gather(*(ask(i) for i in range(prompts)))
    seconds = time.perf_counter() - start
    assert len(texts) == prompts and all(texts)
    return seconds


def main(options: dict[str, Any]) -> None:
    side, folder = options.pop("side"), options.pop("folder")
    print(mangakd(**options, folder=folder) if side == "mangakd" else asyncio.run(plain(**options)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
