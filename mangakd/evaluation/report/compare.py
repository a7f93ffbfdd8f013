"""Runs side by side. Runs with the same test rows get paired intervals against the first run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.evaluation import predictions
from mangakd.evaluation.bootstrap import Estimate, bootstrap
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report import curves
from mangakd.evaluation.report.blocks import Block, Section, Table, Value
from mangakd.evaluation.report.curves import Curves
from mangakd.evaluation.report.measure import read_metrics, statistics_of
from mangakd.evaluation.report.sections import ROWS_ONLY, cell, difference


@dataclass(frozen=True)
class Run:
    """test: None if the run has no predictions."""

    name: str
    metrics: Mapping[str, float]
    curves: Curves
    test: Predictions | None


def read(folders: list[Path]) -> list[Run]:
    """Raises UserError for fewer than two folders, or if a folder is no finished run."""
    if len(set(folders)) < 2:
        raise UserError(
            f"give the folders of two or more runs: {command('compare_runs')} outputs/intent/a outputs/intent/b"
        )
    whole = [Path(os.path.abspath(folder)) for folder in folders]  # a link keeps its name
    names = [folder.name for folder in whole]
    if len(set(names)) < len(names):  # runs of two sweeps may share names: use the paths below their common folder
        names = [os.path.relpath(folder, os.path.commonpath(whole)) for folder in whole]
    return [
        Run(name, read_metrics(folder), curves.read(folder), _predictions(folder))
        for name, folder in zip(names, folders, strict=True)
    ]


def _predictions(folder: Path) -> Predictions | None:
    return predictions.load(folder, "test") if predictions.file_of(folder, "test").is_file() else None


def sections(runs: list[Run], judge: Judge, resamples: int, seed: int) -> list[Section]:
    return [
        Section("Students on test", _scores(runs, judge, resamples, seed)), Section("Curves", _curves(runs, judge))
    ]  # fmt: skip


def _scores(runs: list[Run], judge: Judge, resamples: int, seed: int) -> list[Block]:
    first = runs[0].test
    same = [run for run in runs if first is not None and run.test is not None and first.same_rows(run.test)]
    if len(same) < 2:
        return [
            "No intervals: the first run has no predictions, or no other run has the same test rows.",
            _plain(runs, judge),
        ]
    estimates = {run.name: _estimates(run, judge, resamples, seed) for run in same}
    blocks: list[Block] = [
        f"95 % of {resamples:,} bootstrap resamples of the test rows. {ROWS_ONLY}",
        _table(estimates, judge),
        f"Minus {same[0].name}, paired. An interval that holds 0 is no evidence of a difference.",
        _minus(estimates, judge),
    ]
    others = [run for run in runs if run not in same]
    return [*blocks, "Tested on other rows, or without predictions:", _plain(others, judge)] if others else blocks


def _estimates(run: Run, judge: Judge, resamples: int, seed: int) -> dict[str, Estimate]:
    """Every run has the same seed and the same rows, hence the same resamples. So differences are paired."""
    test = run.test
    assert test is not None
    statistics = statistics_of(judge, test) | dict(judge.details(test).statistics)
    student = {name: statistics["student", name] for name in judge.scores if ("student", name) in statistics}
    return bootstrap(student, resamples, seed)


def _table(runs: Mapping[str, Mapping[str, Estimate]], judge: Judge) -> Table:
    rows: list[list[str | Value]] = [
        [score.text, *(cell(estimates.get(name), score.format) for estimates in runs.values())]
        for name, score in judge.scores.items()
        if any(name in estimates for estimates in runs.values())
    ]
    return Table(["", *runs], rows)


def _minus(runs: Mapping[str, Mapping[str, Estimate]], judge: Judge) -> Table:
    base, *others = runs.values()
    rows: list[list[str | Value]] = []
    for name, score in judge.scores.items():
        if name in base:
            both = [other[name] - base[name] if name in other else None for other in others]
            rows.append([score.text + score.difference_unit, *(difference(each, score) for each in both)])
    return Table(["", *list(runs)[1:]], rows)


def _plain(runs: list[Run], judge: Judge) -> Table:
    """The scores in each metrics.json."""
    rows: list[list[str | Value]] = []
    for name, score in judge.scores.items():
        values = [run.metrics.get(f"test/{name}") for run in runs]
        if any(value is not None for value in values):
            rows.append([score.text, *("–" if value is None else score.format.format(value) for value in values)])
    return Table(["", *(run.name for run in runs)], rows)


def _curves(runs: list[Run], judge: Judge) -> list[Block]:
    by_name = {run.name: run.curves for run in runs}
    columns = list(dict.fromkeys(name for run in runs for name in run.curves.plotted(judge)))
    if not columns:
        return ["None of the runs has curves: train with logger=[csv]."]
    figures = [curves.figure(by_name, column, judge) for column in columns]
    return ["Largest difference from the first run, at the steps that both logged:", _apart(runs, columns), *figures]


def _apart(runs: list[Run], columns: list[str]) -> Table:
    """The largest difference of each column. All zeros prove that the runs learned the same, for example after a refactoring."""
    rows: list[list[str | Value]] = []
    for column in columns:
        base, *others = (dict(zip(*run.curves.columns.get(column, ((), ())), strict=True)) for run in runs)
        gaps = [[abs(other[step] - base[step]) for step in base.keys() & other.keys()] for other in others]
        rows.append([column, *(f"{max(gap):.3g}" if gap else "–" for gap in gaps)])
    return Table(["", *(run.name for run in runs[1:])], rows)
