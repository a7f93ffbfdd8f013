"""Run as `python -m mangakd.export.language.worker job.json`: a process that holds one engine and answers over its pipes.

The process of mangakd/export/worker.py does the same for models that answer with numbers.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from mangakd.export.language.engine import Engine, open_engine
from mangakd.export.worker import peak_rss_mb


def serve(file: Path) -> None:
    """Answer each line of stdin, [method, arguments], with one line on stdout, {"value": …, "peak_rss_mb": …}.

    The methods are those of `Engine`, and `seconds` of `_seconds`.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # prints of libraries go to stderr, so that stdout holds answers alone
        job = json.loads(file.read_text(encoding="utf-8"))
        start = time.perf_counter()
        engine = open_engine(job["engine"], Path(job["model"]), job["runtime"], job["context"])
        print(
            json.dumps({"value": time.perf_counter() - start, "peak_rss_mb": peak_rss_mb()}), file=answers, flush=True
        )
        for line in sys.stdin:
            method, arguments = json.loads(line)
            value = _answer(engine, method, arguments)
            print(json.dumps({"value": value, "peak_rss_mb": peak_rss_mb()}), file=answers, flush=True)
        engine.close()


def _answer(engine: Engine, method: str, arguments: list[Any]) -> Any:
    if method == "seconds":
        return _seconds(engine, *arguments)
    if method == "score":
        scores = engine.score(*arguments)
        return [scores.given.tolist(), scores.top.tolist(), scores.top_log_probs.tolist()]
    return getattr(engine, method)(*arguments)


def _seconds(engine: Engine, ids: list[int], most: int) -> tuple[float, float]:
    """On the clock, and of the processor, which other processes do not lengthen."""
    start, own = time.perf_counter(), time.process_time()
    engine.greedy(ids, most, False)
    return time.perf_counter() - start, time.process_time() - own


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
