"""Learning curves from logs/metrics.csv, and their figures."""

import csv
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mangakd.evaluation.judge import Judge
from mangakd.evaluation.report.blocks import Block, Figure, Table
from mangakd.evaluation.report.svg import Axis, Series, chart

LOSS, NORM, VALIDATION = "train/loss/", "train/gradient_norm/", "val/"


@dataclass(frozen=True)
class Curves:
    """columns: name → (steps, values), the logged points. stages: steps at which a second or later stage begins."""

    columns: Mapping[str, tuple[list[int], list[float]]]
    stages: Sequence[int] = ()

    def terms(self, prefix: str) -> list[str]:
        return [name.removeprefix(prefix) for name in self.columns if name.startswith(prefix)]

    def plotted(self, judge: Judge) -> list[str]:
        """Columns of losses and of the validation scores that the judge watches."""
        losses = [f"{LOSS}{term}" for term in self.terms(LOSS)]
        scores = [f"{VALIDATION}{score}" for score in judge.watched]
        return [name for name in ("train/loss", *losses, *scores) if name in self.columns]


def read(run: Path) -> Curves:
    """Read a run's curves; empty if the run had no logger=[csv]."""
    file = run / "logs" / "metrics.csv"
    if not file.is_file():
        return Curves({})
    with file.open(newline="") as text:
        rows = [row for row in csv.DictReader(text) if (row.get("step") or "").isdigit()]
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if value and name not in (None, "epoch", "step"):
                steps, values = columns.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(float(value))
    return Curves(columns, _stages(rows))


def _stages(rows: Sequence[Mapping[str, str]]) -> list[int]:
    """Find the steps at which a stage begins: the epoch falls back, or the loss terms change."""
    training = [row for row in rows if row.get("train/loss")]
    steps = []
    for before, after in itertools.pairwise(training):
        if int(float(after["epoch"])) < int(float(before["epoch"])) or _terms(after) != _terms(before):
            steps.append((int(before["step"]) + int(after["step"])) // 2 + 1)
    return steps


def _terms(row: Mapping[str, str]) -> set[str]:
    return {name for name, value in row.items() if name and name.startswith(LOSS) and value}


def blocks(curves: Curves, judge: Judge) -> list[Block]:
    if not curves.plotted(judge):
        return ["The run has no curves: train with logger=[csv]."]
    content: list[Block] = []
    if curves.stages:
        content.append(f"Dashed lines: the next stage begins (step {', '.join(map(str, curves.stages))}).")
    if "train/clipped" in curves.columns:
        clipped = curves.columns["train/clipped"][1]
        content.append(
            f"The gradient was clipped in {sum(clipped) / len(clipped):.0%} of the {len(clipped)} logged steps."
        )
    content += [figure({"": curves}, name, judge, curves.stages) for name in curves.plotted(judge)]
    if norms := curves.terms(NORM):
        content.append(_shares(curves, norms))
    return content


def figure(runs: Mapping[str, Curves], column: str, judge: Judge, stages: Sequence[int] = ()) -> Figure:
    """Draw one column, with a curve for each run. runs: name → curves."""
    logged = {name: curves.columns[column] for name, curves in runs.items() if column in curves.columns}
    title, unit, percent = _caption_parts(column, judge)
    series = [
        Series(name, *logged.get(name, ([], []))) for name in runs
    ]  # every run, even without points: a run keeps its colour in all figures
    y = Axis(unit, percent) if percent else Axis(unit, low=_floor(series))
    svg = chart(title, series, _steps(runs.values()), y, stages)
    rows = [[name or column, *_ends(values, percent)] for name, (_, values) in logged.items()]
    return Figure(svg, title, Table(["", "first", "last", "lowest", "highest"], rows))


def _caption_parts(column: str, judge: Judge) -> tuple[str, str, bool]:
    """Title, unit, and whether values are percentages."""
    score = judge.scores.get(column.removeprefix(VALIDATION)) if column.startswith(VALIDATION) else None
    if score is None:
        return column.replace("train/", "").replace("/", " · "), "loss", False
    return f"validation {score.title}", score.axis, score.percent


def _steps(runs: Iterable[Curves]) -> Axis:
    """The x axis, shared by all figures: from 0 to the last logged step."""
    last = max((step for run in runs for steps, _ in run.columns.values() for step in steps), default=0)
    return Axis("optimizer step", low=0, high=max(last + 1, 1))


def _floor(series: Sequence[Series]) -> float | None:
    """The axis starts at 0, unless a value is negative."""
    return 0.0 if all(v >= 0 for s in series for v in s.y if math.isfinite(v)) else None


def _ends(values: Sequence[float], percent: bool) -> list[str]:
    form = "{:.1%}" if percent else "{:.4g}"
    return [form.format(v) for v in (values[0], values[-1], min(values), max(values))]


def _shares(curves: Curves, terms: Sequence[str]) -> Figure:
    """Draw each term's share of the sum of gradient norms, at the logged steps."""
    norms = {term: dict(zip(*curves.columns[f"{NORM}{term}"], strict=True)) for term in terms}
    total: dict[int, float] = {}
    for values in norms.values():
        for step, value in values.items():
            total[step] = total.get(step, 0.0) + value
    series = [
        Series(term, list(values), [value / (total[step] or 1.0) for step, value in values.items()])
        for term, values in norms.items()
    ]
    title = "share of each term in the gradient norm"
    y = Axis("share", percent=True, low=0, high=1)
    svg = chart("share of the gradient norm", series, _steps([curves]), y, curves.stages)
    rows = [[s.name, *_ends(s.y, True)] for s in series]
    return Figure(svg, title, Table(["term", "first", "last", "lowest", "highest"], rows))
