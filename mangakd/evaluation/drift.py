"""Drift checks: does a student in service still agree with its teacher on new texts? The texts need no labels."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mangakd.core.errors import UserError
from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.evaluation.judge import Score
from mangakd.evaluation.report.blocks import Figure, Section, Table, Value
from mangakd.evaluation.report.svg import Axis, Series, chart
from mangakd.evaluation.statistics import SCORES, Answers

KL, AGREEMENT = SCORES["kl"], SCORES["agreement"]


@dataclass(frozen=True)
class Limits:
    kl: float = 0.15
    agreement: float = 0.95


@dataclass(frozen=True)
class Check:
    """One line of the history. kl_interval, agreement_interval: the ends of the 95 % intervals."""

    at: str
    student: str
    teacher: str
    data: str
    rows: int
    kl: float
    kl_interval: tuple[float, float]
    agreement: float
    agreement_interval: tuple[float, float]

    def breaches(self, limits: Limits) -> list[str]:
        """A sentence for each limit that the check exceeds."""
        sentences = []
        if self.kl > limits.kl:
            sentences.append(f"{KL.meaning} {KL.format.format(self.kl)} > {limits.kl}")
        if self.agreement < limits.agreement:
            sentences.append(f"{AGREEMENT.title} {AGREEMENT.format.format(self.agreement)} < {limits.agreement:.1%}")
        return sentences


def compare(
    student: np.ndarray, teacher: np.ndarray, several: bool, about: Mapping[str, str], resamples: int, seed: int
) -> Check:
    """Compare two models. student, teacher: logits (N, C). about: at, student, teacher and data of the check."""
    nothing = np.zeros(student.shape if several else len(student), dtype=np.int64)  # neither score reads targets
    t, s = (Answers(logits, nothing, several=several) for logits in (teacher, student))
    scores = {"kl": statistics.mean(statistics.divergence(t, s)), "agreement": statistics.agreement(t, s)}
    kl, agreement = bootstrap(scores, resamples, seed).values()
    return Check(
        **about, rows=len(student), kl=kl.value, kl_interval=kl.interval,
        agreement=agreement.value, agreement_interval=agreement.interval,
    )  # fmt: skip


def append(history: Path, check: Check) -> list[Check]:
    """Add one line; returns all checks, oldest first. Raises UserError, and adds nothing, if a line of the file is no check."""
    history.parent.mkdir(parents=True, exist_ok=True)
    before = _read(history)
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(check)) + "\n")
    return [*before, check]


def _read(history: Path) -> list[Check]:
    lines = history.read_text(encoding="utf-8").splitlines() if history.is_file() else []
    checks = []
    for number, line in enumerate(lines, 1):
        try:
            checks.append(Check(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(
                f"line {number} of {history} is no check: {error}. Remove it, or give another history=."
            ) from error
    return checks


def sections(checks: list[Check], limits: Limits) -> list[Section]:
    rows: list[list[str | Value]] = [
        [
            c.at, str(c.rows), _value(KL, c.kl, c.kl_interval), _value(AGREEMENT, c.agreement, c.agreement_interval),
            "drifted" if c.breaches(limits) else "good", c.data,
        ]
        for c in reversed(checks)
    ]  # fmt: skip
    kl = _figure(KL.meaning, Axis(KL.axis, low=0), [c.kl for c in checks], limits.kl)
    axis = Axis(AGREEMENT.axis, percent=True)
    agreement = _figure(AGREEMENT.title, axis, [c.agreement for c in checks], limits.agreement)
    headers = ["checked", "rows", f"{KL.title}, {KL.unit}", AGREEMENT.title, "", "data"]
    return [Section("Checks", [kl, agreement, Table(headers, rows)])]


def _value(score: Score, value: float, interval: tuple[float, float]) -> Value:
    return Value(score.format.format(value), f"[{', '.join(map(score.format.format, interval))}]")


def _figure(title: str, axis: Axis, values: list[float], limit: float) -> Figure:
    places = [float(i) for i in range(1, len(values) + 1)]
    ends = [0.5, len(values) + 0.5]
    series = [Series(title, places, values), Series("limit", ends, [limit, limit])]
    svg = chart(title, series, Axis("check", low=ends[0], high=ends[1]), axis)
    numbers = Table(["", "latest", "limit"], [[title, f"{values[-1]:.3f}", str(limit)]])
    return Figure(svg, f"{title}, oldest check first", numbers)


def advice(alpha: float | None) -> str:
    """alpha: the distill.alpha of the student's run, None if unknown."""
    if alpha is None:
        return "Distil again on newer texts, with distill.alpha lowered by 0.1."
    lower = max(alpha - 0.1, 0.0)
    return f"Distil again on newer texts, with alpha lowered by 0.1: distill.alpha={lower:.2g} (it was {alpha:.2g})."


def limits_of(values: Mapping[str, float]) -> Limits:
    return Limits(**{str(name): float(value) for name, value in values.items()})
