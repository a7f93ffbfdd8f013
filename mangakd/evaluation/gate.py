"""May this student ship? Each line of conf/gate compares one number of the report with a threshold.

`tested: estimate` compares the number itself. `tested: bound` compares the worse end of its 95 % interval, for claims that must
hold for any test rows, such as a lift above 0. A number that the run lacks neither passes nor fails; the line says how to
measure the number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mangakd.core.errors import UserError, near
from mangakd.core.invocation import command
from mangakd.evaluation.bootstrap import Estimate
from mangakd.evaluation.judge import Better, Judge

_BASELINE = "train again with baseline=true"


class Measure(NamedTuple):
    """A number that a line can test. format: of a value. missing: how to get the number if the run lacks it."""

    title: str
    format: str
    better: Better
    missing: str


_COSTS = {
    "latency_ms": Measure("median latency, ms", "{:.1f}", "lower", "{report} run={run} latency=true"),
    "megabytes": Measure("size of the weights, MB", "{:.1f}", "lower", "keep student/ in the run folder"),
    "params": Measure("parameters", "{:,.0f}", "lower", "train again: metrics.json has no student/params"),
}


def lift(judge: Judge, score: str) -> str:
    """The name of the measure that compares the student with the baseline."""
    return "lift" if score == judge.main else f"lift_{score}"


def measures(judge: Judge) -> dict[str, Measure]:
    """Name → measure: the judge's scores, retention, the lift of each score over the baseline's, and costs."""
    main = judge.scores[judge.main]
    sides = "student / teacher" if main.higher else "teacher / student"
    lifts = {
        lift(judge, name): Measure(
            f"{score.title} {'above' if score.higher else 'below'} the baseline's{score.difference_unit}",
            score.difference_format, "higher", _BASELINE,
        )
        for name, score in judge.scores.items()
    }  # fmt: skip
    own = {name: Measure(score.text, score.format, score.better, score.missing) for name, score in judge.scores.items()}
    retention = Measure(f"{main.title}: {sides}", "{:.1%}", "higher", main.missing)
    return own | {"retention": retention} | lifts | _COSTS


THRESHOLDS = {"at_least": "≥", "at_most": "≤", "above": ">", "below": "<"}
_FITTING = {"higher": ("at_least", "above"), "lower": ("at_most", "below")}
TESTED = ("estimate", "bound")


@dataclass(frozen=True)
class Line:
    """One entry of conf/gate. measure: a key of `measures`. about: its measure. tested: estimate or bound of the interval."""

    name: str
    measure: str
    about: Measure
    threshold: str
    limit: float
    tested: str = "estimate"

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any], table: Mapping[str, Measure]) -> "Line":
        """Read an entry. table: see `measures`. Raises UserError that names the wrong key."""
        thresholds = {key: value for key, value in entry.items() if key in THRESHOLDS and value is not None}
        unknown = [key for key in entry if key not in (*THRESHOLDS, "measure", "tested")]
        if unknown:
            raise UserError(
                f"gate.{name}.{unknown[0]} is unknown{near(unknown[0], [*THRESHOLDS, 'measure', 'tested'])}"
            )
        measure, tested = str(entry.get("measure")), entry.get("tested", "estimate")
        if measure not in table:
            raise UserError(
                f"gate.{name}.measure={measure} is unknown{near(measure, table)} Known: {', '.join(table)}."
            )
        if tested not in TESTED:
            raise UserError(f"gate.{name}.tested={tested} must be one of {', '.join(TESTED)}.")
        if len(thresholds) != 1:
            raise UserError(
                f"gate.{name} needs one threshold of {', '.join(THRESHOLDS)}; found {list(thresholds) or 'none'}."
            )
        ((threshold, limit),) = thresholds.items()
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise UserError(f"gate.{name}.{threshold}={limit} must be a number.")
        about = table[measure]
        if threshold not in _FITTING[about.better]:
            raise UserError(
                f"gate.{name}.{threshold}={limit} passes bad students: of {measure}, {about.better} is better. Use "
                f"{' or '.join(_FITTING[about.better])}."
            )
        return cls(name, measure, about, threshold, float(limit), tested)

    def verdict(self, number: Estimate | float | None, run: str) -> "Verdict":
        form = self.about.format
        requirement = f"{self.about.title} {THRESHOLDS[self.threshold]} {form.format(self.limit)}"
        if number is None:
            cure = self.about.missing.format(run=run, report=command("report"))
            return Verdict(self.name, requirement, f"not measured: {cure}", None)
        value, interval = (number.value, number.interval) if isinstance(number, Estimate) else (number, None)
        result = form.format(value)
        if interval is not None:
            result += f" [{', '.join(map(form.format, interval))}]"
        if self.tested == "bound" and interval is not None:
            value = interval[0] if self.threshold in ("at_least", "above") else interval[1]
            requirement += " at 95 %"
        passes = {
            "at_least": value >= self.limit, "at_most": value <= self.limit,
            "above": value > self.limit, "below": value < self.limit,
        }[self.threshold]  # fmt: skip
        return Verdict(self.name, requirement, result, bool(passes))


@dataclass(frozen=True)
class Verdict:
    """The result of a line. passed: None if the run lacks the number."""

    name: str
    required: str
    result: str
    passed: bool | None

    @property
    def word(self) -> str:
        return {True: "pass", False: "FAIL", None: "not measured"}[self.passed]


def verdicts(gate: Mapping[str, Any], judge: Judge, numbers: Mapping[str, Estimate | float], run: str) -> list[Verdict]:
    """gate: the entries of conf/gate; null removes a line. numbers: measure → the run's number."""
    return [line.verdict(numbers.get(line.measure), run) for line in lines(gate, judge)]


def lines(gate: Mapping[str, Any], judge: Judge) -> list[Line]:
    """Read all entries. Raises UserError that names the wrong key."""
    table = measures(judge)
    return [Line.of(str(name), entry, table) for name, entry in gate.items() if entry is not None]


def summary(results: list[Verdict]) -> str:
    """Summarise all lines in one sentence."""
    failed = [verdict.name for verdict in results if verdict.passed is False]
    missing = [verdict.name for verdict in results if verdict.passed is None]
    passes = len(results) - len(failed) - len(missing)
    parts = [f"{passes} of {len(results)} lines pass"]
    parts += [f"failed: {', '.join(failed)}"] if failed else []
    parts += [f"not measured: {', '.join(missing)}"] if missing else []
    return "; ".join(parts) + "."
