"""What a teacher behind an API, a student on own machines and the training cost, and when the student has paid for itself.

    teacher a month  = questions · (tokens in · price in + tokens out · price out) / 10⁶
    replicas         = max(least, ⌈questions a second · peak / (requests a second · utilisation)⌉)
    student a month  = replicas · price of a machine and hour · 24 · DAYS
    break-even, days = (training + labelling) / ((teacher − student) a day)

Every number is an estimate, and each assumption is printed with it. Staff, storage, network and retraining are not counted.
"""

import math
from dataclasses import dataclass

from mangakd.planning.job import GB, Machine, Range
from mangakd.planning.plan import Estimate
from mangakd.planning.sizes import Model
from mangakd.planning.speed import BANDWIDTH
from mangakd.planning.table import LABEL, between, figure

DAYS = 365 / 12  # of a month
MILLION = 1_000_000
WEIGHT_BYTES = 1.0625  # of a weight in q8_0: 32 weights of 8 bits share 16 bits of scale
SLOTS = 4  # requests whose tokens are written together, `--slots` of mangakd serve


@dataclass(frozen=True)
class Traffic:
    """per_day: questions. tokens_in, tokens_out: of one. peak: the busiest time over the mean."""

    per_day: float
    tokens_in: float
    tokens_out: float
    peak: float

    @property
    def per_month(self) -> float:
        return self.per_day * DAYS

    @property
    def peak_per_second(self) -> float:
        return self.per_day / 86_400 * self.peak


@dataclass(frozen=True)
class TokenPrice:
    """USD of a million tokens. source: where it is from."""

    input: float
    output: float
    source: str

    def of(self, questions: float, traffic: Traffic) -> float:
        """USD of so many questions of this traffic's tokens."""
        return questions * (traffic.tokens_in * self.input + traffic.tokens_out * self.output) / MILLION


@dataclass(frozen=True)
class Replica:
    """One machine that serves the student. requests_per_second: (worst, best). origin: how they are known. least: replicas."""

    name: str
    usd_per_hour: float
    requests_per_second: Range
    origin: str
    utilisation: float
    least: int

    def needed(self, traffic: Traffic) -> tuple[int, int]:
        """Replicas, (fewest, most)."""
        worst, best = self.requests_per_second
        few, many = (math.ceil(traffic.peak_per_second / (speed * self.utilisation)) for speed in (best, worst))
        return max(few, self.least), max(many, self.least)


@dataclass(frozen=True)
class Costs:
    """USD. teacher: a month. student: a month, (best, worst). training: once, (best, worst). labelling: once."""

    traffic: Traffic
    price: TokenPrice
    replica: Replica
    training: Range
    labelling: float

    @property
    def teacher(self) -> float:
        return self.price.of(self.traffic.per_month, self.traffic)

    @property
    def student(self) -> Range:
        few, many = self.replica.needed(self.traffic)
        month = self.replica.usd_per_hour * 24 * DAYS
        return few * month, many * month

    @property
    def break_even(self) -> Range:
        """Days, (best, worst); infinite where the student costs as much as the teacher."""
        ends = zip(self.training, self.student, strict=True)
        best, worst = (self._days(training + self.labelling, student) for training, student in ends)
        return best, worst

    def _days(self, once: float, student: float) -> float:
        saved = (self.teacher - student) / DAYS
        return once / saved if saved > 0 else math.inf


def costs(plan: Estimate, traffic: Traffic, price: TokenPrice, replica: Replica) -> Costs:
    """training: of the plan. labelling: of a teacher behind an API, which answers each example once."""
    labelling = price.of(plan.job.examples, traffic) if plan.job.teacher == "api" else 0.0
    return Costs(traffic, price, replica, plan.usd, labelling)


def speed(student: Model, machine: Machine, traffic: Traffic, writes: bool) -> Range:
    """Requests a second of one machine, (worst, best), from the sizes of the student.

    A text is read at the machine's share of its peak. A token is written as fast as the weights, in 8 bits, are read from memory;
    SLOTS requests share one reading. writes: whether the student answers with text.
    """
    tokens_in, tokens_out = math.ceil(traffic.tokens_in), math.ceil(traffic.tokens_out)
    if student.decoder is not None:
        work = student.forward_flops(1, tokens_in + tokens_out, tokens_out)
    else:
        work = student.forward_flops(1, tokens_in)
    peak = machine.peak("bf16-mixed" if "bf16" in machine.tflops else "32-true")
    written = tokens_out * student.parameters * WEIGHT_BYTES / SLOTS if writes else 0.0
    ends = zip(machine.mfu, BANDWIDTH, strict=True)
    worst, best = (1 / (work / (peak * mfu) + written / (machine.bandwidth_gb_s * GB * share)) for mfu, share in ends)
    return worst * machine.devices, best * machine.devices


def table(costs: Costs) -> str:
    """The costs as text, with what they rest on."""
    traffic, replica = costs.traffic, costs.replica
    few, many = costs.replica.needed(traffic)
    count = f"{few}" if few == many else f"{few}–{many}"
    rows = [
        ("teacher, a month", usd(costs.teacher)),
        ("student, a month", f"{between(costs.student, usd)}: {count} replicas of {replica.name}"),
        ("training, once", between(costs.training, usd) if costs.training[1] else "own machine"),
        *([("labelling, once", usd(costs.labelling))] if costs.labelling else []),
        ("break-even", _break_even(costs)),
    ]
    notes = [
        f"{figure(traffic.per_day)} questions a day of {traffic.tokens_in:g} tokens, answers of {traffic.tokens_out:g}; "
        f"a month has {DAYS:.1f} days",
        f"the teacher's price is {costs.price.input:g} USD in and {costs.price.output:g} out per million tokens "
        f"({costs.price.source}), without cached prompts and batch discounts",
        f"the busiest time has {traffic.peak:g} × the mean traffic: {figure(traffic.peak_per_second)} requests a second",
        f"a replica answers {between(replica.requests_per_second, figure)} requests a second ({replica.origin}) and is used "
        f"to {replica.utilisation:.0%}; at least {replica.least} replicas; {replica.usd_per_hour:g} USD an hour each",
        "not counted: staff, storage, network, retraining; quality is taken as equal",
    ]
    if not costs.training[1]:
        notes.append("training on an own machine is taken as free: hardware.machine.usd_per_hour")
    lines = [f"  {title:<24}{value}" for title, value in rows]
    assumptions = [f"  - {note}" for note in notes]
    return "\n".join([f"costs ({LABEL})", *lines, "", "assumptions of the costs, each an estimate", *assumptions])


def usd(value: float) -> str:
    return f"{value:,.0f} USD" if value >= 100 else f"{value:,.2f} USD"


def _break_even(costs: Costs) -> str:
    best, worst = costs.break_even
    if math.isinf(best):
        return "never: the student costs as much as the teacher or more"
    return f"{between((best, worst), _days)}" if math.isfinite(worst) else f"{_days(best)}, or never at the worst"


def _days(value: float) -> str:
    return f"{figure(value)} days"
