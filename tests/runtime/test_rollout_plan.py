"""Decisions of a rollout under a clock that the test turns: raise, hold, roll back, complete; and going on after a restart."""

from pathlib import Path

import pytest
from rollout_rules import quick

from mangakd.runtime.rollout.plan import Decision, Plan
from mangakd.runtime.rollout.settings import Settings


def feed(
    plan: Plan, agreed: int = 0, disagreed: int = 0, answered: int = 0, errors: int = 0, now: float = 100
) -> list[str]:
    """The decisions, each applied."""
    kinds = []

    def settle(decision: Decision | None) -> None:
        if decision is not None:
            plan.apply(decision, now)
            kinds.append(decision.kind)

    for count, observe, value in (
        (answered, plan.answer, False), (errors, plan.answer, True), (agreed, plan.compare, True),
        (disagreed, plan.compare, False),
    ):  # fmt: skip
        for _ in range(count):
            settle(observe(value, now))
    return kinds


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return quick(tmp_path)


def test_a_good_student_goes_all_the_way(settings: Settings) -> None:
    plan = Plan(settings, 0)
    assert plan.share == 0.25
    assert feed(plan, agreed=12, answered=32) == ["raise"]
    assert (plan.share, plan.phase, plan.counts["compared"], plan.began) == (1.0, "running", 0, 100)
    assert feed(plan, agreed=12, answered=32, now=160) == ["complete"]
    assert (plan.share, plan.phase, plan.decisions) == (1.0, "complete", 2)


@pytest.mark.parametrize(
    ("agreed", "answered", "now"),
    [(12, 31, 100), (11, 32, 100), (12, 32, 59)],
    ids=["errors not passed", "quality not passed", "too early"],
)
def test_a_raise_needs_everything(agreed: int, answered: int, now: float, settings: Settings) -> None:
    plan = Plan(settings, 0)
    assert feed(plan, agreed=agreed, answered=answered, now=now) == []
    if now < 60:
        assert plan.due(59.9) is None and plan.due(60).kind == "raise"  # type: ignore[union-attr]


def test_failures_after_a_passed_test_delay_the_raise(settings: Settings) -> None:
    """λ of the second test of quality: ln 3 for the failure, then five times ln(0.7 / 0.9) brings it under 0."""
    plan = Plan(settings, 0)
    assert feed(plan, agreed=12, disagreed=1) == []
    assert feed(plan, answered=32) == [] and plan.tests["errors"].passes == 1
    assert feed(plan, agreed=4) == [] and feed(plan, agreed=1) == ["raise"]


def test_a_raise_needs_the_samples(tmp_path: Path) -> None:
    plan = Plan(quick(tmp_path, step=type(quick(tmp_path).step)(samples=13, seconds=0)), 0)
    assert feed(plan, agreed=12, answered=32) == []
    assert feed(plan, agreed=1) == ["raise"]


def test_a_worse_student_is_held_and_then_rolled_back(settings: Settings) -> None:
    """λ of quality: 4 · ln 3 > 3.49; of agreement, ln 2 each: 7 · 0.693 > 4.19."""
    plan = Plan(settings, 0)
    assert feed(plan, disagreed=3) == []
    assert feed(plan, disagreed=1) == ["hold"] and plan.share == 0.25
    assert feed(plan, agreed=20, answered=40) == []  # a hold does not end by itself
    plan = Plan(settings, 0)
    assert feed(plan, disagreed=7) == ["hold", "roll back"]
    assert (plan.share, plan.phase, plan.counts["compared"], plan.began) == (0, "rolled back", 0, 100)
    assert (
        feed(plan, disagreed=9, errors=9, agreed=50, answered=50, now=999) == []
    )  # and a rollback does not end, either


def test_errors_roll_back_in_every_phase(settings: Settings) -> None:
    """ln(0.1 / 0.01) = 2.303: two errors are over ln(2π² / 6 / 0.05) = 4.19."""
    plan = Plan(settings, 0)
    plan.answer(True, 1)
    assert plan.answer(True, 2) == Decision("roll back", "errors of the student are over errors.rollback", 0.25, 0.0)
    plan = Plan(settings, 0)
    assert feed(plan, errors=1) == [] and feed(plan, errors=1) == ["roll back"]
    plan = Plan(settings, 0)
    feed(plan, agreed=12, answered=32)
    feed(plan, agreed=12, answered=32, now=200)
    assert plan.phase == "complete" and "roll back" in feed(plan, errors=5)


def test_a_step_starts_its_tests_anew(settings: Settings) -> None:
    plan = Plan(settings, 0)
    feed(plan, agreed=12, answered=32)
    assert all(test.n == 0 and test.passes == 0 for test in plan.tests.values())
    assert plan.tests["quality"].number == 2  # the first one passed; the second saw nothing
    feed(plan, agreed=3, disagreed=1)
    assert (plan.counts["compared"], plan.counts["agreed"]) == (4, 3)


def test_it_goes_on_from_its_state(settings: Settings) -> None:
    first = Plan(settings, 0)
    feed(first, agreed=12, answered=32)
    feed(first, agreed=7, answered=5, disagreed=1)
    second = Plan(settings, 999)
    second.restore(first.state())
    assert second.state() == first.state()
    for plan in (first, second):
        assert feed(plan, agreed=20, answered=40, now=300) == ["complete"]


def test_other_rules_end_a_hold_and_keep_the_share(tmp_path: Path) -> None:
    plan = Plan(quick(tmp_path, steps=(0.1, 0.2, 0.5)), 0)
    feed(plan, agreed=12, answered=32)
    feed(plan, disagreed=5)  # the second test: 5 · ln 3 > 4.88
    assert plan.phase == "held" and plan.share == 0.2
    other = Plan(quick(tmp_path, steps=(0.05, 0.15, 0.3, 1.0)), 0)
    other.restore(plan.state())
    other.change_rules(plan.share, 500)
    assert (other.phase, other.share, other.counts["compared"]) == ("running", 0.15, 0)


def test_the_same_steps_under_other_rules_keep_the_share_and_a_further_step_ends_completeness(tmp_path: Path) -> None:
    plan = Plan(quick(tmp_path, steps=(0.1, 0.2)), 0)
    for now in (100, 200):
        feed(plan, agreed=12, answered=32, now=now)
    assert (plan.phase, plan.share) == ("complete", 0.2)
    for steps, phase in (((0.1, 0.2), "complete"), ((0.1, 0.2, 0.5), "running")):
        other = Plan(quick(tmp_path, steps=steps), 0)
        other.restore(plan.state())
        other.change_rules(0.2, 500)
        assert (other.phase, other.share) == (phase, 0.2)


def test_a_shadow_has_no_share(tmp_path: Path) -> None:
    plan = Plan(quick(tmp_path, mode="shadow", steps=(0.0,)), 0)
    assert plan.share == 0 and feed(plan, agreed=12, answered=32) == ["complete"] and plan.share == 0
