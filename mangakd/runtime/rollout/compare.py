"""Asks the other side in the background and compares the two answers. No answer ever waits for it.

The queue is bounded: when `waiting` questions wait, further comparisons are dropped and counted. Dropping does not depend on the
answers, so the agreement of the others stays unbiased.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.runtime import metrics
from mangakd.runtime.rollout.agreement import agree, items
from mangakd.runtime.rollout.asking import Asking
from mangakd.runtime.rollout.choice import place
from mangakd.runtime.rollout.rollout import Rollout
from mangakd.runtime.rollout.sides import Question, Reply

log = logging.getLogger("mangakd.rollout")
WORKERS = 4  # comparisons at a time
Job = tuple[Question, Reply, str]


class Comparer:
    """`start` within a running event loop."""

    def __init__(self, rollout: Rollout, asking: Asking, draining: Callable[[], bool]):
        self._rollout, self._asking, self._settings = rollout, asking, rollout.settings
        self._draining = draining
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(rollout.settings.waiting)
        self._tasks: list[asyncio.Task[None]] = []
        self._texts = Texts(rollout.settings.texts, rollout.settings.texts_most) if rollout.settings.texts else None
        self.results = metrics.Counter(
            "mangakd_rollout_compared_total", "Questions that both sides answered, by result.",
            [{"result": result} for result in ("agreed", "disagreed")],
        )  # fmt: skip
        self.dropped = metrics.Counter(
            "mangakd_rollout_dropped_total", "Comparisons that did not happen: queue full, other side failed, unlike answers.",
            [{"reason": reason} for reason in ("queue", "failed", "unlike")],
        )  # fmt: skip

    @property
    def waiting(self) -> int:
        return self._jobs.qsize()

    @property
    def _over(self) -> bool:
        """A service that shuts down refuses, which says nothing about its model."""
        return self._rollout.over or self._draining()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(self, question: Question, reply: Reply, other: str) -> None:
        """other: the side that is asked, too."""
        try:
            self._jobs.put_nowait((question, reply, other))
        except asyncio.QueueFull:
            self._drop("queue")

    async def _work(self) -> None:
        while True:
            question, reply, other = await self._jobs.get()
            try:
                await self._compare(question, reply, other)
            except Exception:  # such as a full disk for texts; the next comparison must still happen
                log.exception("a comparison failed", extra={"fields": {"request_id": question.request_id}})

    async def _compare(self, question: Question, reply: Reply, other: str) -> None:
        if self._over:
            return None
        if not self._asking.allows(other):
            return self._drop("failed")
        second, seconds = await self._asking.ask(other, question)
        if self._over:  # since it was asked
            return None
        self._rollout.answer(other, seconds, error=second is None)
        if second is None or second.status != 200:
            return self._drop("failed")
        student, incumbent = (second, reply) if other == "student" else (reply, second)
        chosen = place(self._settings.name, "text", question.request_id)
        agreed = agree(items(student.body), items(incumbent.body), chosen, self._settings.agreement)
        if agreed is None:
            return self._drop("unlike")
        self.results.add(result="agreed" if agreed else "disagreed")
        self._rollout.compare(agreed)
        if self._texts is not None:
            self._texts.write(question, agreed)
        return None

    def _drop(self, reason: str) -> None:
        self.dropped.add(reason=reason)
        self._rollout.drop()


class Texts:
    """The texts of compared questions, a line of JSON each, at most `most`. Only for who asked for it: customers wrote them."""

    def __init__(self, file: str, most: int):
        self._file = Path(file).expanduser()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a+", encoding="utf-8") as stream:
                stream.seek(0)
                self._left = most - sum(1 for _ in stream)
        except OSError as error:
            raise UserError(f"texts: {self._file} cannot be written: {error.strerror}. Give another file.") from error

    def write(self, question: Question, agreed: bool) -> None:
        lines = [json.dumps({"text": text, "agreed": agreed}) for text in texts_of(question.body)][: max(self._left, 0)]
        if lines:
            self._left -= len(lines)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write("\n".join(lines) + "\n")


def texts_of(body: bytes) -> list[str]:
    """The plain texts of a question. Conversations and queries with documents have none: check_drift reads texts."""
    content: Any = json.loads(body)
    values: Any = next((content[key] for key in ("texts", "inputs", "input") if key in content), [])
    values = [values] if isinstance(values, str) else values
    return [] if "query" in content else [text for text in values if isinstance(text, str)]
