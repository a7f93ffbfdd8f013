"""The front between two sides: who answers, who answers instead, what is compared, and what never waits."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="the client: pip install httpx")

from rollout_front import World, world

from mangakd.runtime.rollout.breaker import Breaker
from mangakd.runtime.rollout.settings import BreakerSettings

Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """play(scene, **changes of the settings) runs scene(world)."""

    def run(scene: Callable[[World], Coroutine[Any, Any, None]], **changes: Any) -> None:
        async def within() -> None:
            async with world(tmp_path, **changes) as one:
                await scene(one)

        asyncio.run(within())

    return run


def test_an_id_goes_one_way_and_stays_in(play: Play) -> None:
    async def scene(one: World) -> None:
        first, second = await one.asks(200), await one.asks(200)
        assert first == second and 30 < first.count("student") < 70  # 25 %
        one.rollout.plan.step = 1
        after = await one.asks(200)
        assert after.count("student") > 80
        assert all(later == "student" for early, later in zip(first, after, strict=True) if early == "student")

    play(scene, steps=(0.25, 0.5), compare=0.01)


def test_a_student_that_dies_is_rolled_back_and_no_question_is_lost(play: Play) -> None:
    async def scene(one: World) -> None:
        one.student.fails = True
        answers = [await one.ask(f"q{i}") for i in range(100)]
        assert [answer.status_code for answer in answers] == [200] * 100
        assert {answer.headers["x-mangakd-side"] for answer in answers} == {"incumbent"}
        assert one.rollout.over and len(one.student.asked) == 2  # two errors decide
        metrics = await one.metrics()
        assert metrics['mangakd_rollout_phase{phase="rolled_back"}'] == 1 and metrics["mangakd_rollout_share"] == 0
        assert metrics['mangakd_rollout_fallbacks_total{to="incumbent"}'] == 2
        assert metrics['mangakd_rollout_asked_total{side="student",outcome="error"}'] == 2

    play(scene)


def test_the_student_answers_for_an_incumbent_that_is_away(play: Play) -> None:
    async def scene(one: World) -> None:
        one.incumbent.fails = True
        assert await one.asks(60) == ["student"] * 60
        await one.settle()
        assert len(one.incumbent.asked) < 20  # the breaker: 5 failures, and comparisons that were under way
        metrics = await one.metrics()
        assert metrics['mangakd_rollout_breaker_open{side="incumbent"}'] == 1
        assert metrics['mangakd_rollout_dropped_total{reason="failed"}'] > 0
        # An error of the student while nobody else answers says nothing about the student.
        one.student.fails = True
        answer = await one.ask("q1000")
        assert (
            answer.status_code == 503 and answer.headers["retry-after"] == "1" and "both fail" in answer.json()["error"]
        )
        assert (await one.metrics())["mangakd_rollout_unanswered_total"] == 1
        for i in range(40):
            assert (await one.ask(f"r{i}")).status_code == 503
        assert one.rollout.plan.phase == "running" and one.rollout.plan.counts["student_errors"] > 2

    play(scene, compare=1.0)


def test_a_side_that_hangs_is_left_after_its_timeout(play: Play) -> None:
    async def scene(one: World) -> None:
        one.student.gate = asyncio.Event()
        start = time.monotonic()
        assert (await one.ask("q1")).headers["x-mangakd-side"] == "incumbent"
        assert 0.1 <= time.monotonic() - start < 5 and one.rollout.plan.counts["student_errors"] == 1

    play(scene, steps=(1.0,), timeout=0.1)


def test_a_comparison_never_delays_an_answer_and_its_queue_is_bounded(play: Play) -> None:
    async def scene(one: World) -> None:
        one.incumbent.gate = asyncio.Event()
        assert await one.asks(20) == ["student"] * 20  # while no comparison ends
        metrics = await one.metrics()
        assert metrics["mangakd_rollout_waiting"] == 3
        assert metrics['mangakd_rollout_dropped_total{reason="queue"}'] == 20 - 4 - 3  # four are asked at a time
        assert one.rollout.plan.counts["compared"] == 0
        one.incumbent.gate.set()
        await one.settle()
        assert (await one.metrics())['mangakd_rollout_compared_total{result="agreed"}'] == 7

    play(scene, steps=(1.0,), compare=1.0, waiting=3)


def test_a_worse_student_is_held_then_rolled_back(play: Play) -> None:
    async def scene(one: World) -> None:
        one.student.label = "b"
        for i in range(7):
            await one.ask(f"q{i}")
            await one.settle()
        assert one.rollout.over
        metrics = await one.metrics()
        assert metrics['mangakd_rollout_decisions_total{decision="hold"}'] == 1
        assert metrics['mangakd_rollout_compared_total{result="disagreed"}'] == 7
        one.clock.now += 100
        asked = len(one.incumbent.asked)
        assert await one.asks(10, start=7) == ["incumbent"] * 10
        await one.settle()
        assert len(one.incumbent.asked) == asked + 10  # nothing is compared any more
        assert len(one.student.asked) == 7

    play(scene, steps=(1.0,), compare=1.0)


def test_a_shadow_answers_nothing(play: Play) -> None:
    async def scene(one: World) -> None:
        one.student.label = "b"
        assert await one.asks(3) == ["incumbent"] * 3
        await one.settle()
        assert one.student.asked == ["q0", "q1", "q2"]
        assert one.rollout.plan.counts["compared"] == 3 and one.rollout.plan.counts["agreed"] == 0
        one.student.fails = True
        assert await one.asks(5, start=3) == ["incumbent"] * 5
        await one.settle()
        assert one.rollout.over and one.rollout.plan.phase == "rolled back"

    play(scene, mode="shadow", steps=(0.0,), compare=1.0)


def test_a_refusal_is_the_caller_s_matter(play: Play) -> None:
    async def scene(one: World) -> None:
        one.student.status = 422
        answers = [await one.ask(f"q{i}") for i in range(20)]
        assert {answer.status_code for answer in answers} == {422}
        await one.settle()
        assert one.incumbent.asked == [] and one.rollout.plan.tests["errors"].failures == 0
        assert (await one.metrics())['mangakd_rollout_asked_total{side="student",outcome="refused"}'] == 20

    play(scene, steps=(1.0,), compare=1.0)


def test_the_service_refuses_a_body_that_is_too_large(play: Play) -> None:
    async def scene(one: World) -> None:
        answer = await one.ask("q1", b"x" * 5000)
        assert answer.status_code == 200 and "x-mangakd-side" not in answer.headers
        assert one.student.received == 5000 and one.incumbent.asked == []

    play(scene)


def test_a_service_that_shuts_down_answers_for_itself(play: Play) -> None:
    async def scene(one: World) -> None:
        one.incumbent.gate = asyncio.Event()
        await one.asks(3)
        one.draining, one.student.status = True, 503
        assert (await one.ask("q9")).status_code == 503
        one.incumbent.gate.set()
        await one.settle()
        assert one.rollout.plan.counts["compared"] == 0 and one.rollout.plan.counts["student_errors"] == 0

    play(scene, steps=(1.0,), compare=1.0)


def test_texts_are_kept_by_choice_alone(play: Play, tmp_path: Path) -> None:
    kept = tmp_path / "texts.jsonl"

    async def scene(one: World) -> None:
        for i in range(3):
            await one.ask(f"q{i}", json.dumps({"texts": [f"text {i}", "and another"]}).encode())
        await one.settle()

    play(scene, steps=(1.0,), compare=1.0)
    assert not kept.exists() and "text 0" not in (tmp_path / "rollout.jsonl").read_text()
    play(scene, steps=(1.0,), compare=1.0, log=str(tmp_path / "b.jsonl"), texts=str(kept), texts_most=5)
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [line["text"] for line in lines] == ["text 0", "and another", "text 1", "and another", "text 2"]
    assert all(line["agreed"] for line in lines)


def test_a_breaker_tries_again_after_its_time() -> None:
    now = 0.0
    breaker = Breaker(BreakerSettings(failures=2, seconds=10), lambda: now)
    breaker.note(True)
    assert breaker.allows() and not breaker.open
    breaker.note(True)
    assert breaker.open and not breaker.allows()
    now = 10.0
    assert breaker.allows() and not breaker.allows()  # one question tries
    breaker.note(False)
    assert breaker.allows() and not breaker.open
