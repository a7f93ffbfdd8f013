"""The report of a sweep: every point with its interval, a heat map, curves, and the command that won."""

import itertools
import math
from pathlib import Path

from mangakd.evaluation.bootstrap import RESAMPLES
from mangakd.evaluation.report import curves, markdown, seeds
from mangakd.evaluation.report.blocks import Block, Figure, Section, Table, Value
from mangakd.evaluation.report.heatmap import heatmap
from mangakd.evaluation.report.svg import Axis, Series, chart
from mangakd.evaluation.report.write import write
from mangakd.evaluation.sweep import Point, SweepResult, behind, result

DRAWN = 6  # curves that can be told apart


def write_sweep(folder: Path, resamples: int = RESAMPLES, seed: int = 0) -> str:
    """report.html and report.md in the sweep's folder; returns the table, for the terminal. Raises UserError: no run finished."""
    found = result(folder)
    best = found.points[0]
    over_seeds = seeds.sections(best, found.score) if len(best.runs) > 1 else []
    points = [] if found.repeats else [_winner(found), _table(found, resamples, seed)]
    parts = [*points, *over_seeds, _maps(found), _curves(found), _troubles(found)]
    parts = [part for part in parts if part.blocks]
    write(folder / "report", f"{'Seeds' if found.repeats else 'Sweep'}: {folder.resolve().name}", parts)
    shown = [Section(part.title, [b for b in part.blocks if not isinstance(b, Figure)]) for part in parts[:2]]
    return markdown.page(f"{len(found.runs)} runs, {len(found.points)} points", shown)


def _winner(found: SweepResult) -> Section:
    best = found.points[0]
    test, agreement = best.mean_of(f"test/{found.score}"), best.mean_of("test/agreement")
    repeated = f"{len(best.runs)} seeds" if len(best.runs) > 1 else "one seed"
    words = [
        f"Best on validation ({repeated}): {_named(found, best)}. {found.score} {_shown(best).text} {_shown(best).interval}",
        f"Its students on test: {found.score} {test:.1%}, agreement with the teacher {agreement:.1%}. Points were chosen on "
        "validation; test is shown for the best one alone, as choosing by test would flatter it.",
        f"Its command: {found.winning_command()}",
    ]
    return Section("The best point", words)


def _named(found: SweepResult, point: Point) -> str:
    return ", ".join(f"{key}={value}" for key, value in zip(found.keys, point.values, strict=True)) or "the only one"


def _shown(point: Point) -> Value:
    return Value(f"{point.mean:.1%}", "" if math.isnan(point.half) else f"± {100 * point.half:.1f}")


def _table(found: SweepResult, resamples: int, seed: int) -> Section:
    gaps = behind(found.points, resamples, seed)
    note = "± is the 95 % interval of the mean over seeds (Student's t); it needs two seeds." if _several(found) else (
        "One seed for each point: add seed=0,1,2 to see how far luck goes."
    )  # fmt: skip
    headers = [*found.keys, "seeds", f"validation {found.score}", "minus best, points", "minutes a run"]
    rows: list[list[str | Value]] = []
    for number, point in enumerate(found.points):
        gap = Value("–")
        if gaps and number:
            low, high = gaps[number].interval
            gap = Value(f"{gaps[number].value:+.1f}", f"{low:+.1f} to {high:+.1f}")
        minutes = point.mean_of("run/seconds") / 60
        rows.append([*point.values, str(len(point.runs)), _shown(point), gap, f"{minutes:.1f}"])
    blocks: list[Block] = [note, Table(headers, rows)]
    if gaps:
        blocks.append(
            "Minus best: paired over the validation rows, 95 % of the bootstrap's resamples. An interval that holds 0 is no "
            "evidence that the best point is better than this one."
        )
    return Section("Points, best first", blocks)


def _several(found: SweepResult) -> bool:
    return any(len(point.runs) > 1 for point in found.points)


def _maps(found: SweepResult) -> Section:
    """One heat map for every two keys, one curve for a single key. Other keys: the best of their values."""
    if len(found.keys) == 1:
        return Section("Score by value", _line(found))
    drawn: list[Block] = [_map(found, *pair) for pair in itertools.combinations(range(len(found.keys)), 2)]
    return Section("Heat map", drawn)


def _map(found: SweepResult, across: int, down: int) -> Figure:
    cells: dict[tuple[str, str], float] = {}
    for point in found.points:  # best first
        cells.setdefault((point.values[across], point.values[down]), point.mean)
    columns, rows = (sorted({point.values[k] for point in found.points}, key=_order) for k in (across, down))
    names = (found.keys[across], found.keys[down])
    rest = "" if len(found.keys) == 2 else ", best over the other keys"
    title = f"validation {found.score}{rest}"
    table = [[row, *(f"{cells[c, row]:.1%}" if (c, row) in cells else "–" for c in columns)] for row in rows]
    numbers = Table([f"{names[1]} ↓  {names[0]} →", *columns], table)
    return Figure(heatmap(title, columns, rows, names, cells), title, numbers)


def _line(found: SweepResult) -> list[Block]:
    points = sorted(found.points, key=lambda point: _order(point.values[0]))
    numbers = Table([found.keys[0], f"validation {found.score}"], [[p.values[0], _shown(p)] for p in points])
    if any(_order(point.values[0])[0] for point in points):
        return [numbers]  # names have no axis
    series = [Series("", [float(point.values[0]) for point in points], [point.mean for point in points])]
    title = f"validation {found.score}"
    return [Figure(chart(title, series, Axis(found.keys[0]), Axis("mean over seeds", percent=True)), title, numbers)]


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then names."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _curves(found: SweepResult) -> Section:
    """Of the best points, the first seed of each; of a run under several seeds, each seed."""
    if found.repeats:
        chosen = {f"run {run.folder.name}": curves.read(run.folder) for run in found.points[0].runs[:DRAWN]}
    else:
        chosen = {", ".join(point.values) or "run": curves.read(point.runs[0].folder) for point in found.points[:DRAWN]}
    columns = [f"val/{found.score}", "val/agreement", "val/kl", "train/loss"]
    drawn: list[Block] = [
        curves.figure(chosen, column) for column in columns if any(column in one.columns for one in chosen.values())
    ]
    if not drawn:
        return Section("Curves", ["The runs kept no curves: train with logger=[csv]."])
    note = (
        f"The best {len(chosen)} points by {', '.join(found.keys)}; first seed of each."
        if found.keys
        else f"The first {len(chosen)} runs."
    )
    losses = " Losses of different temperatures and weights are on different scales."
    return Section("Curves", [note + losses, *drawn])


def _troubles(found: SweepResult) -> Section:
    rows = [
        [
            run.folder.name,
            " ".join(f"{k}={v}" for k, v in run.settings.items() if k in (*found.keys, "seed")),
            _why(run.error),
        ]
        for run in found.runs
        if not run.finished
    ]
    return Section(
        "Runs without a result", [Table(["run", "settings", "what happened"], rows, texts=True)] if rows else []
    )


def _why(error: str) -> str:
    return error or "not finished; the sweep's command with hydra.sweep.dir=… resume=auto goes on with it"
