"""`EngineProcess`: an engine in a process of its own, asked over pipes. It is an `Engine` itself."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mangakd.core.errors import UserError
from mangakd.export.language.engine import Messages, Scores
from mangakd.runtime.language_manifest import Engine as Name


class EngineProcess:
    """load_seconds: imports and loading. peak_rss_mb: of the process until now.

    Raises UserError where the engine cannot open the model, or where its process dies; with its last line.
    """

    def __init__(self, name: Name, model: Path, runtime: Mapping[str, Any], context: int) -> None:
        self._name, self._model = name, model
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        job = {"engine": name, "model": str(model.absolute()), "runtime": dict(runtime), "context": context}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        self._stderr = folder / "stderr"
        with self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mangakd.export.language.worker", str(folder / "job.json")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8",
            )  # fmt: skip
        try:
            self.load_seconds = float(self._read())
        except BaseException:
            self.close()
            raise

    def ids(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        return self._ask("ids", list(texts), special)  # type: ignore[no-any-return]

    def score(self, ids: Sequence[int], start: int, top: int) -> Scores:
        given, best, log_probs = self._ask("score", list(ids), start, top)
        return Scores(np.array(given), np.array(best, dtype=np.int64), np.array(log_probs))

    def greedy(self, ids: Sequence[int], most: int, stops: bool = True) -> list[int]:
        return self._ask("greedy", list(ids), most, stops)  # type: ignore[no-any-return]

    def chat(self, messages: Messages) -> list[int]:
        return self._ask("chat", [list(message) for message in messages])  # type: ignore[no-any-return]

    def seconds(self, ids: Sequence[int], most: int) -> tuple[float, float]:
        """Of a prompt and `most` tokens after it, in the process: on the clock, and of the processor."""
        wall, own = self._ask("seconds", list(ids), most)
        return wall, own

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what the dead process has not read
                    pipe.close()
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has died; `_read` reports the reason
            self._process.stdin.write(json.dumps([method, arguments]) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            answer = json.loads(line)
            self.peak_rss_mb = answer["peak_rss_mb"]
            return answer["value"]
        status = self._process.wait()
        lines = self._stderr.read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {status}"
        raise UserError(f"{self._model} cannot be run by {self._name}: {reason}")
