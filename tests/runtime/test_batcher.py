"""The queue: questions wait only while a batch is computed, and are the next batch; a full queue refuses at once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from mangakd.runtime.batcher import SHORT, Batcher, Full

LONG = "a" * (SHORT + 1)  # a text that leaves the event loop free while it is computed


class Lengths:
    """A model whose row for a text is its length. `gate`: held until set; `batches`: what it was asked."""

    def __init__(self) -> None:
        self.gate, self.batches, self.threads = threading.Event(), list[list[str]](), list[int]()
        self.gate.set()

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.batches.append(texts)
        self.threads.append(threading.get_ident())
        assert self.gate.wait(10)
        if "bad" in texts:
            raise RuntimeError("the model broke")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def play(scene: Callable[[Batcher, Lengths], Awaitable[None]]) -> Lengths:
    model = Lengths()

    async def whole() -> None:
        batcher = Batcher(model, max_batch=4, capacity=6)
        await asyncio.wait_for(scene(batcher, model), 10)
        assert batcher.waiting == 0 and batcher.computing == 0
        batcher.stop()

    asyncio.run(whole())
    return model


def test_questions_that_come_together_are_one_batch_and_get_their_own_rows() -> None:
    async def scene(batcher: Batcher, _: Lengths) -> None:
        rows = await asyncio.gather(batcher.submit(["a", "bb"]), batcher.submit(["ccc"]))
        assert [r.tolist() for r in rows] == [[[1], [2]], [[3]]]

    assert play(scene).batches == [["a", "bb", "ccc"]]


def test_a_lone_short_question_is_computed_at_once_in_the_thread_of_the_event_loop() -> None:
    async def scene(batcher: Batcher, model: Lengths) -> None:
        await batcher.submit(["a"])
        await batcher.submit([LONG])  # the event loop stays free
        await asyncio.gather(batcher.submit(["a"]), batcher.submit(["b"]))  # in company
        assert [thread == threading.get_ident() for thread in model.threads] == [True, False, False]

    assert [len(batch) for batch in play(scene).batches] == [1, 1, 2]


def test_questions_gather_while_a_batch_is_computed_and_stay_whole() -> None:
    async def scene(batcher: Batcher, model: Lengths) -> None:
        model.gate.clear()
        waiting = [asyncio.create_task(batcher.submit([LONG] * 4))]
        while not model.batches:
            await asyncio.sleep(0.005)
        for texts in (["a", "b"], ["c"], ["d", "e"], ["f"]):
            waiting.append(asyncio.create_task(batcher.submit(texts)))
            await asyncio.sleep(0.01)
        assert len(model.batches) == 1 and batcher.waiting == 6
        model.gate.set()
        assert [len(rows) for rows in await asyncio.gather(*waiting)] == [4, 2, 1, 2, 1]

    assert play(scene).batches == [[LONG] * 4, ["a", "b", "c"], ["d", "e", "f"]]


def test_a_question_larger_than_a_batch_goes_alone() -> None:
    async def scene(batcher: Batcher, _: Lengths) -> None:
        rows = await asyncio.gather(batcher.submit(["x"] * 5), batcher.submit(["y"]))
        assert [len(r) for r in rows] == [5, 1]

    assert [len(batch) for batch in play(scene).batches] == [5, 1]


def test_a_full_queue_refuses_and_has_room_again() -> None:
    async def scene(batcher: Batcher, model: Lengths) -> None:
        model.gate.clear()
        computing = asyncio.create_task(batcher.submit([LONG] * 4))
        while not model.batches:
            await asyncio.sleep(0.005)
        waiting = asyncio.create_task(batcher.submit(["b"] * 6))
        await asyncio.sleep(0)
        assert (batcher.computing, batcher.waiting) == (4, 6)
        with pytest.raises(Full):
            await batcher.submit(["c"])
        model.gate.set()
        assert len(await computing) == 4 and len(await waiting) == 6
        assert (await batcher.submit(["dd"])).tolist() == [[2]]

    play(scene)


def test_a_broken_batch_fails_its_questions_and_no_other() -> None:
    async def scene(batcher: Batcher, _: Lengths) -> None:
        with pytest.raises(RuntimeError, match="the model broke"):
            await batcher.submit(["bad"])
        assert (await batcher.submit(["fine"])).tolist() == [[4]]

    play(scene)


def test_a_caller_that_leaves_takes_nobody_along() -> None:
    async def scene(batcher: Batcher, model: Lengths) -> None:
        model.gate.clear()
        leaving, staying = (asyncio.create_task(batcher.submit([name])) for name in ("a", "bb"))
        while not model.batches:
            await asyncio.sleep(0.005)
        leaving.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        assert (await staying).tolist() == [[2]]

    play(scene)
