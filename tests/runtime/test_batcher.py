"""The queue: what comes together is computed together, each question gets its own rows, a full queue refuses at once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from mangakd.runtime.batcher import Batcher, Full


class Lengths:
    """A model whose row for a text is its length. `gate`: held until set; `batches`: what it was asked."""

    def __init__(self) -> None:
        self.gate, self.batches = threading.Event(), list[list[str]]()
        self.gate.set()

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.batches.append(texts)
        assert self.gate.wait(10)
        if "bad" in texts:
            raise RuntimeError("the model broke")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def play(scene: Callable[[Batcher, Lengths], Awaitable[None]], max_wait: float = 0.05) -> Lengths:
    model = Lengths()

    async def whole() -> None:
        batcher = Batcher(model, max_batch=4, max_wait=max_wait, capacity=6)
        batcher.start()
        await asyncio.wait_for(scene(batcher, model), 10)
        assert batcher.waiting == 0 and batcher.computing == 0
        await batcher.stop()

    asyncio.run(whole())
    return model


def test_questions_that_come_together_are_one_batch_and_get_their_own_rows() -> None:
    async def scene(batcher: Batcher, _: Lengths) -> None:
        rows = await asyncio.gather(batcher.submit(["a", "bb"]), batcher.submit(["ccc"]))
        assert [r.tolist() for r in rows] == [[[1], [2]], [[3]]]

    assert play(scene).batches == [["a", "bb", "ccc"]]


def test_a_full_batch_does_not_wait_and_questions_stay_whole() -> None:
    async def scene(batcher: Batcher, _: Lengths) -> None:
        await asyncio.gather(*(batcher.submit(texts) for texts in (["a", "b"], ["c"], ["d", "e"])), first(batcher))

    async def first(batcher: Batcher) -> None:
        await batcher.submit(["f"])

    # max_wait is longer than the scene may last, but for the last batch, which is filled to four.
    async def filled(batcher: Batcher, _: Lengths) -> None:
        await asyncio.gather(*(batcher.submit([name] * 2) for name in "abcd"[:2]))

    assert play(scene).batches == [["a", "b", "c"], ["d", "e", "f"]]
    assert play(filled, max_wait=60).batches == [["a", "a", "b", "b"]]


def test_a_question_larger_than_a_batch_goes_alone() -> None:
    async def scene(batcher: Batcher, _: Lengths) -> None:
        rows = await asyncio.gather(batcher.submit(["x"] * 5), batcher.submit(["y"]))
        assert [len(r) for r in rows] == [5, 1]

    assert [len(batch) for batch in play(scene).batches] == [5, 1]


def test_a_full_queue_refuses_and_has_room_again() -> None:
    async def scene(batcher: Batcher, model: Lengths) -> None:
        model.gate.clear()
        computing = asyncio.create_task(batcher.submit(["a"] * 4))
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
