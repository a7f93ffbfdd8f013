"""The costs at the end of a plan: their formulas by hand, and what the command reads and refuses."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPO
from omegaconf import DictConfig

from mangakd.cli import plan as plans
from mangakd.cli.given import run_of
from mangakd.core.errors import UserError
from mangakd.planning.costs import DAYS, Costs, Replica, TokenPrice, Traffic, speed, table
from mangakd.planning.job import Machine
from mangakd.planning.sizes import Model

TRAFFIC = Traffic(100_000, tokens_in=500, tokens_out=150, peak=3)
PRICE = TokenPrice(2, 8, "a test")
REPLICA = Replica("cpu", 0.4, (1.0, 2.0), "measured", utilisation=0.6, least=2)
COSTS = Costs(TRAFFIC, PRICE, REPLICA, training=(100.0, 250.0), labelling=21.6)


def test_the_costs_of_a_month_by_hand() -> None:
    """100,000 · 365/12 = 3,041,666.7 questions: 1,520.83 M tokens in at 2 USD, 456.25 M out at 8.

    The peak has 100,000 / 86,400 · 3 = 3.472 a second: at 2 · 0.6 a replica 2.9, at 1 · 0.6 5.8 replicas. One costs 292 USD.
    """
    assert COSTS.teacher == pytest.approx(3041.6667 + 3650, abs=1e-3)
    assert REPLICA.needed(TRAFFIC) == (3, 6)
    assert COSTS.student == pytest.approx((876, 1752))
    # (6,691.67 − 876) · 12 / 365 = 191.20 USD a day are saved at best, (6,691.67 − 1,752) · 12 / 365 = 162.40 at the worst.
    assert COSTS.break_even == pytest.approx((121.6 / 191.2, 271.6 / 162.4), rel=1e-4)


def test_little_traffic_needs_the_least_replicas_and_never_pays() -> None:
    small = Costs(Traffic(100, 500, 150, 3), PRICE, REPLICA, (100, 250), 0)
    assert REPLICA.needed(small.traffic) == (2, 2) and small.student == pytest.approx((584, 584))
    assert small.teacher == pytest.approx(6.6917, abs=1e-4)
    assert "never: the student costs as much as the teacher or more" in table(small)


def test_the_table_names_every_assumption() -> None:
    text = table(COSTS)
    for line in (
        "teacher, a month        6,692 USD",
        "student, a month        876–1,752 USD: 3–6 replicas of cpu",
        "training, once          100–250 USD",
        "labelling, once         21.60 USD",
        "break-even              0.64–1.7 days",
        "2 USD in and 8 out per million tokens (a test)",
        "3 × the mean traffic: 3.5 requests a second",
        "1–2 requests a second (measured) and is used to 60%",
        "not counted: staff",
    ):
        assert line in text, text


def test_the_estimated_speed_by_hand() -> None:
    """500 tokens · (2 · 10⁹ + 500 · 4) FLOP = 1.000001 TFLOP, at 10 TFLOP/s of which 25–50 % are reached: 0.4–0.2 s.

    100 tokens · 10⁹ weights · 1.0625 bytes / 4 slots = 26.5625 GB, at 100 GB/s of which 60–85 % are reached: 0.4427–0.3125 s.
    """
    student = Model(
        "one", 1_000_000_000, 0, 1_000_000_000, head=0, adapter=0, whole=0, layers=1, hidden=1, heads=1, keys=1, head_size=1,
        intermediate=1, gated=False, outputs=1, per_token=True,
    )  # fmt: skip
    machine = Machine("m", 80, {"fp32": 10}, 100, mfu=(0.25, 0.5))
    traffic = Traffic(1, 500, 100, 1)
    assert speed(student, machine, traffic, writes=True) == pytest.approx((1 / 0.8427087, 1 / 0.5125002), rel=1e-5)
    assert speed(student, machine, traffic, writes=False) == pytest.approx((1 / 0.4000004, 1 / 0.2000002), rel=1e-5)
    eight = dataclasses.replace(machine, devices=8, strategy="ddp")
    assert speed(student, eight, traffic, writes=False) == pytest.approx((8 / 0.4000004, 8 / 0.2000002), rel=1e-5)


@pytest.fixture
def lines(compose: Callable[..., DictConfig]) -> Callable[..., str]:
    def of(*overrides: str) -> str:
        config = compose("hardware=a100", "task=response", "workload=response_lora", *overrides, name="plan")
        return plans.plan_of(config, run_of(config, Path(), "a100"))

    return of


def test_the_command_reads_prices_and_adds_labelling(lines: Callable[..., str]) -> None:
    text = lines("traffic_per_day=100000", "costs.teacher=gpt-4.1-2025-04-14", "costs.requests_per_second=2")
    # 3,041,666.7 · (500 · 2 + 100 · 8) / 10⁶ and 12,000 conversations of the same tokens
    assert "teacher, a month        5,475 USD" in text and "labelling, once         21.60 USD" in text
    assert f"{3 * 0.4 * 24 * DAYS:.0f} USD: 3 replicas of cpu" in text and "developers.openai.com" in text
    own = lines("traffic_per_day=1000", "costs.price.input=1", "costs.price.output=0", "costs.hardware=h100")
    assert (
        "1 USD in and 0 out per million tokens (set by costs.price)" in own and "costs.hardware=h100; measure it" in own
    )
    assert "costs (" not in lines()
    block = (REPO / "docs/how-to/planning.md").read_text(encoding="utf-8").partition("costs (planning estimate)")[2]
    assert block.partition("```")[0].rstrip() in text  # what the page shows is what is printed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "traffic_per_day needs the teacher's price: costs.teacher is not set"),
        (("costs.teacher=gpt-9",), "costs.teacher=gpt-9 has none in conf/prices"),
        (("costs.price.input=1",), "costs.price.output=None must be a number"),
        (("costs=null",), "costs=None must hold keys: .* such as costs.teacher"),
        (("costs.price=3",), "costs.price=3 must hold keys: .* such as costs.price.input"),
        (("costs.teacher=gpt-4.1", "costs.peak=0"), "costs.peak=0 must be a number above 0"),
        (("costs.teacher=gpt-4.1", "costs.utilisation=1.5"), "costs.utilisation=1.5 is a share"),
        (("costs.teacher=gpt-4.1", "costs.replicas=1.5"), "costs.replicas=1.5 is a number of machines"),
        (
            ("costs.teacher=gpt-4.1", "costs.hardware=h10"),
            "costs.hardware=h10 is no profile with figures; did you mean h100",
        ),
        (("costs.teacher=gpt-4.1", "costs.hardware=mps"), "costs.hardware=mps has no price.* set costs.usd_per_hour"),
        (("costs.teacher=gpt-4.1", "traffic_per_day=many"), "traffic_per_day=many must be a number"),
    ],
)
def test_what_the_command_refuses(
    lines: Callable[..., str], overrides: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "estimated", None)  # before the plan, which may take a minute
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        lines(*(() if "traffic_per_day" in str(overrides) else ("traffic_per_day=1000",)), *overrides)
