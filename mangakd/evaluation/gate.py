"""May this student ship? Each line of conf/gate compares one number of the report with a threshold.

`tested: estimate` compares the number itself, `tested: bound` the worse end of its 95 % interval: for claims that must hold
whatever rows the test happened to draw, such as a lift above 0. What was not measured neither passes nor fails; the line
says how to measure it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError, near
from mangakd.core.invocation import command
from mangakd.evaluation.bootstrap import Estimate

_PREDICTIONS = "train again: the run kept no predictions"
_BASELINE = "train again with baseline=true"
# measure: what it is, how it is shown, how to get it where it is missing
MEASURES: dict[str, tuple[str, str, str]] = {
    "accuracy": ("accuracy of the student", "{:.1%}", _PREDICTIONS),
    "macro_f1": ("macro-F1 of the student", "{:.1%}", _PREDICTIONS),
    "rare_accuracy": (
        "accuracy on rare classes", "{:.1%}",
        "no class is rare in training, or none of them occurs in test; test on rows that have them",
    ),
    "agreement": ("agreement with the teacher", "{:.1%}", _PREDICTIONS),
    "kl": ("KL(teacher ‖ student), nats", "{:.3f}", _PREDICTIONS),
    "retention": ("student accuracy / teacher accuracy", "{:.1%}", _PREDICTIONS),
    "ece": ("ECE as trained", "{:.3f}", _PREDICTIONS),
    "ece_refit": ("ECE after temperature refit", "{:.3f}", _PREDICTIONS),
    "lift": ("accuracy above the baseline's, points", "{:+.1f}", _BASELINE),
    "lift_macro_f1": ("macro-F1 above the baseline's, points", "{:+.1f}", _BASELINE),
    "latency_ms": ("median latency, ms", "{:.1f}", "{report} run={run} latency=true"),
    "megabytes": ("size of the weights, MB", "{:.1f}", "keep student/ in the run folder"),
    "params": ("parameters", "{:,.0f}", "train again: metrics.json has no student/params"),
}  # fmt: skip
THRESHOLDS = {"at_least": "≥", "at_most": "≤", "above": ">", "below": "<"}
TESTED = ("estimate", "bound")


@dataclass(frozen=True)
class Line:
    """One entry of conf/gate: a measure, what of it is tested, and one threshold."""

    name: str
    measure: str
    threshold: str
    limit: float
    tested: str = "estimate"

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> "Line":
        """Raises UserError naming the key for an entry that cannot be tested."""
        given = {key: value for key, value in entry.items() if key in THRESHOLDS and value is not None}
        unknown = [key for key in entry if key not in (*THRESHOLDS, "measure", "tested")]
        if unknown:
            raise UserError(
                f"gate.{name}.{unknown[0]} is unknown{near(unknown[0], [*THRESHOLDS, 'measure', 'tested'])}"
            )
        measure, tested = entry.get("measure"), entry.get("tested", "estimate")
        if measure not in MEASURES:
            raise UserError(
                f"gate.{name}.measure={measure} is unknown{near(str(measure), MEASURES)} Known: {', '.join(MEASURES)}."
            )
        if tested not in TESTED:
            raise UserError(f"gate.{name}.tested={tested} must be one of {', '.join(TESTED)}.")
        if len(given) != 1:
            raise UserError(
                f"gate.{name} needs one threshold of {', '.join(THRESHOLDS)}; found {list(given) or 'none'}."
            )
        ((threshold, limit),) = given.items()
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise UserError(f"gate.{name}.{threshold}={limit} must be a number.")
        return cls(name, measure, threshold, float(limit), tested)

    def judge(self, found: Estimate | float | None, run: str) -> "Verdict":
        what, form, how = MEASURES[self.measure]
        wanted = f"{what} {THRESHOLDS[self.threshold]} {form.format(self.limit)}"
        if found is None:
            return Verdict(self.name, wanted, f"not measured: {how.format(run=run, report=command('report'))}", None)
        value, interval = (found.value, found.interval) if isinstance(found, Estimate) else (found, None)
        shown = form.format(value)
        if interval is not None:
            shown += f" [{', '.join(map(form.format, interval))}]"
        if self.tested == "bound" and interval is not None:
            value = interval[0] if self.threshold in ("at_least", "above") else interval[1]
            wanted += " at 95 %"
        passed = {
            "at_least": value >= self.limit, "at_most": value <= self.limit,
            "above": value > self.limit, "below": value < self.limit,
        }[self.threshold]  # fmt: skip
        return Verdict(self.name, wanted, shown, bool(passed))


@dataclass(frozen=True)
class Verdict:
    """passed: None where it was not measured."""

    name: str
    wanted: str
    found: str
    passed: bool | None

    @property
    def word(self) -> str:
        return {True: "pass", False: "FAIL", None: "not measured"}[self.passed]


def judged(gate: Mapping[str, Any], found: Mapping[str, Estimate | float], run: str) -> list[Verdict]:
    """gate: the entries of conf/gate; null leaves a line out. found: measure → what the run has of it."""
    lines = [Line.of(str(name), entry) for name, entry in gate.items() if entry is not None]
    return [line.judge(found.get(line.measure), run) for line in lines]


def summary(verdicts: list[Verdict]) -> str:
    """One sentence."""
    failed = [verdict.name for verdict in verdicts if verdict.passed is False]
    missing = [verdict.name for verdict in verdicts if verdict.passed is None]
    passed = len(verdicts) - len(failed) - len(missing)
    parts = [f"{passed} of {len(verdicts)} lines pass"]
    parts += [f"failed: {', '.join(failed)}"] if failed else []
    parts += [f"not measured: {', '.join(missing)}"] if missing else []
    return "; ".join(parts) + "."
