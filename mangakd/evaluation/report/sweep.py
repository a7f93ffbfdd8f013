"""The report of a sweep: every point with its interval, a heat map, curves, and the command of the best point."""

import itertools
import math
from pathlib import Path

from mangakd.evaluation.bootstrap import RESAMPLES
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.report import curves, markdown, seeds
from mangakd.evaluation.report.blocks import Block, Figure, Section, Table, Value
from mangakd.evaluation.report.heatmap import heatmap
from mangakd.evaluation.report.svg import Axis, Series, chart
from mangakd.evaluation.report.write import write
from mangakd.evaluation.sweep import Point, SweepResult, behind, result

FIGURE_RUNS = 6  # more curves are hard to distinguish


def write_sweep(folder: Path, judge: Judge, resamples: int = RESAMPLES, seed: int = 0) -> str:
    """Write report.html and report.md to the sweep's folder; returns the table. Raises UserError if no run has finished."""
    sweep = result(folder, judge)
    best = sweep.points[0]
    over_seeds = seeds.sections(best, sweep.score, judge) if len(best.runs) > 1 else []
    points = [] if sweep.repeats else [_winner(sweep), _table(sweep, resamples, seed)]
    parts = [*points, *over_seeds, _maps(sweep), _curves(sweep), _troubles(sweep)]
    parts = [part for part in parts if part.blocks]
    write(folder / "report", f"{'Seeds' if sweep.repeats else 'Sweep'}: {folder.resolve().name}", parts)
    terminal = [Section(part.title, [b for b in part.blocks if not isinstance(b, Figure)]) for part in parts[:2]]
    return markdown.page(f"{len(sweep.runs)} runs, {len(sweep.points)} points", terminal)


def _winner(sweep: SweepResult) -> Section:
    best = sweep.points[0]
    others = [name for name in sweep.judge.watched if name != sweep.score]
    test_scores = ", ".join(
        f"{sweep.judge.scores[name].text} {sweep.judge.scores[name].format.format(best.mean_of(f'test/{name}'))}"
        for name in (sweep.score, *others)
        if any(f"test/{name}" in run.metrics for run in best.runs)
    )
    count = f"{len(best.runs)} seeds" if len(best.runs) > 1 else "one seed"
    words = [
        f"Best on validation ({count}): {_describe(sweep, best)}. {sweep.about.title} "
        f"{_score(sweep, best).text} {_score(sweep, best).interval}",
        f"Its students on test: {test_scores}. Validation chose the point. Test is shown for the best point only, because a "
        "choice by test would flatter the point.",
        f"Its command: {sweep.winning_command()}",
    ]
    return Section("The best point", words)


def _describe(sweep: SweepResult, point: Point) -> str:
    return ", ".join(f"{key}={value}" for key, value in zip(sweep.keys, point.values, strict=True)) or "the only point"


def _score(sweep: SweepResult, point: Point) -> Value:
    """The mean over seeds, with half the width of its interval."""
    half = sweep.about.difference_format.format(sweep.about.factor * point.half).removeprefix("+")
    return Value(sweep.about.format.format(point.mean), "" if math.isnan(point.half) else f"± {half}")


def _table(sweep: SweepResult, resamples: int, seed: int) -> Section:
    gaps = behind(sweep, resamples, seed)
    note = "± is the 95 % interval of the mean over seeds (Student's t); it needs two seeds." if _several(sweep) else (
        "One seed for each point: add seed=0,1,2 to see how far the seed moves the score."
    )  # fmt: skip
    unit = sweep.about.difference_unit
    headers = [*sweep.keys, "seeds", f"validation {sweep.about.title}", f"minus best{unit}", "minutes a run"]
    rows: list[list[str | Value]] = []
    for number, point in enumerate(sweep.points):
        gap = Value("–")
        if gaps and number:
            value, *ends = map(sweep.about.difference_format.format, (gaps[number].value, *gaps[number].interval))
            gap = Value(value, " to ".join(ends))
        minutes = point.mean_of("run/seconds") / 60
        rows.append([*point.values, str(len(point.runs)), _score(sweep, point), gap, f"{minutes:.1f}"])
    blocks: list[Block] = [note, Table(headers, rows)]
    if gaps:
        blocks.append(
            "Minus best: paired over the validation rows, 95 % of the bootstrap's resamples. An interval that contains 0 is no "
            "evidence that the best point is better than the row's point."
        )
    return Section("Points, best first", blocks)


def _several(sweep: SweepResult) -> bool:
    return any(len(point.runs) > 1 for point in sweep.points)


def _maps(sweep: SweepResult) -> Section:
    """One heat map for each pair of keys, one curve for a single key. A cell is the best over the other keys."""
    if len(sweep.keys) == 1:
        return Section("Score by value", _line(sweep))
    figures: list[Block] = [_map(sweep, *pair) for pair in itertools.combinations(range(len(sweep.keys)), 2)]
    return Section("Heat map", figures)


def _map(sweep: SweepResult, across: int, down: int) -> Figure:
    cells: dict[tuple[str, str], float] = {}
    for point in sweep.points:  # best first
        cells.setdefault((point.values[across], point.values[down]), point.mean)
    columns, rows = (sorted({point.values[k] for point in sweep.points}, key=_order) for k in (across, down))
    names = (sweep.keys[across], sweep.keys[down])
    rest = "" if len(sweep.keys) == 2 else ", best over the other keys"
    title = f"validation {sweep.about.title}{rest}"
    table = [
        [row, *(sweep.about.format.format(cells[c, row]) if (c, row) in cells else "–" for c in columns)]
        for row in rows
    ]
    numbers = Table([f"{names[1]} ↓  {names[0]} →", *columns], table)
    return Figure(heatmap(title, columns, rows, names, cells, sweep.about), title, numbers)


def _line(sweep: SweepResult) -> list[Block]:
    points = sorted(sweep.points, key=lambda point: _order(point.values[0]))
    numbers = Table(
        [sweep.keys[0], f"validation {sweep.about.title}"], [[p.values[0], _score(sweep, p)] for p in points]
    )
    if any(_order(point.values[0])[0] for point in points):
        return [numbers]  # names have no axis
    series = [Series("", [float(point.values[0]) for point in points], [point.mean for point in points])]
    title = f"validation {sweep.about.title}"
    y = Axis("mean over seeds", percent=sweep.about.percent)
    return [Figure(chart(title, series, Axis(sweep.keys[0]), y), title, numbers)]


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then names."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _curves(sweep: SweepResult) -> Section:
    """The curves of the best points, the first seed of each. For a run under several seeds: the curves of each seed."""
    if sweep.repeats:
        runs = {f"run {run.folder.name}": curves.read(run.folder) for run in sweep.points[0].runs[:FIGURE_RUNS]}
    else:
        runs = {
            ", ".join(point.values) or "run": curves.read(point.runs[0].folder) for point in sweep.points[:FIGURE_RUNS]
        }
    columns = [*dict.fromkeys(f"val/{name}" for name in (sweep.score, *sweep.judge.watched)), "train/loss"]
    figures: list[Block] = [
        curves.figure(runs, column, sweep.judge)
        for column in columns
        if any(column in one.columns for one in runs.values())
    ]
    if not figures:
        return Section("Curves", ["The runs have no curves: train with logger=[csv]."])
    note = (
        f"The best {len(runs)} points by {', '.join(sweep.keys)}; first seed of each."
        if sweep.keys
        else f"The first {len(runs)} runs."
    )
    losses = " Losses of different temperatures and weights are on different scales."
    return Section("Curves", [note + losses, *figures])


def _troubles(sweep: SweepResult) -> Section:
    rows = [
        [
            run.folder.name,
            " ".join(f"{k}={v}" for k, v in run.settings.items() if k in (*sweep.keys, "seed")),
            _why(run.error),
        ]
        for run in sweep.runs
        if not run.finished
    ]
    return Section(
        "Runs without a result", [Table(["run", "settings", "what happened"], rows, texts=True)] if rows else []
    )


def _why(error: str) -> str:
    return error or "not finished; the sweep's command with hydra.sweep.dir=… resume=auto resumes the run"
