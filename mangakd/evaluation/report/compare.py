"""Runs side by side. Where they were tested on the same rows, with paired intervals against the first of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.evaluation import predictions as kept
from mangakd.evaluation.bootstrap import Estimate, bootstrap
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report import curves
from mangakd.evaluation.report.blocks import Block, Section, Table, Value
from mangakd.evaluation.report.curves import Curves
from mangakd.evaluation.report.measure import read_metrics, wanted_scores
from mangakd.evaluation.report.sections import ROWS_ONLY, SCORES, shown
from mangakd.evaluation.statistics import Answers


@dataclass(frozen=True)
class Run:
    """tested: None where the run kept no predictions."""

    name: str
    metrics: Mapping[str, float]
    curves: Curves
    tested: Predictions | None


def read(folders: list[Path]) -> list[Run]:
    """Raises UserError where one is no finished run, or fewer than two are given."""
    if len(set(folders)) < 2:
        raise UserError(
            f"give the folders of two or more runs: {command('compare_runs')} outputs/intent/a outputs/intent/b"
        )
    whole = [Path(os.path.abspath(folder)) for folder in folders]  # a link keeps its name
    names = [folder.name for folder in whole]
    if len(set(names)) < len(names):  # runs of two sweeps: what tells them apart, from where their paths part
        names = [os.path.relpath(folder, os.path.commonpath(whole)) for folder in whole]
    return [
        Run(name, read_metrics(folder), curves.read(folder), kept.load(folder, "test") if _kept(folder) else None)
        for name, folder in zip(names, folders, strict=True)
    ]


def _kept(folder: Path) -> bool:
    return kept.file_of(folder, "test").is_file()


def sections(runs: list[Run], resamples: int, seed: int) -> list[Section]:
    return [Section("Students on test", _scores(runs, resamples, seed)), Section("Curves", _curves(runs))]


def _scores(runs: list[Run], resamples: int, seed: int) -> list[Block]:
    first = runs[0].tested
    same = [run for run in runs if first is not None and run.tested is not None and first.same_rows(run.tested)]
    if len(same) < 2:
        return [
            "No intervals: the first run kept no predictions, or no other was tested on the same rows.",
            _plain(runs),
        ]
    found = {run.name: _estimates(run, resamples, seed) for run in same}
    blocks: list[Block] = [f"95 % of {resamples:,} bootstrap resamples of the test rows. {ROWS_ONLY}", _table(found)]
    blocks += [f"Minus {same[0].name}, paired. An interval that holds 0 is no evidence of a difference.", _minus(found)]
    others = [run for run in runs if run not in same]
    return [*blocks, "Tested on other rows, or without predictions:", _plain(others)] if others else blocks


def _estimates(run: Run, resamples: int, seed: int) -> dict[str, Estimate]:
    """The same seed and rows for every run: the same resamples, so that differences are paired."""
    tested = run.tested
    assert tested is not None
    answers = {name: Answers(tested.logits[name], tested.targets) for name in ("teacher", "student")}
    wanted = wanted_scores(tested, answers)
    return bootstrap(
        {score: wanted["student", score] for score in SCORES if ("student", score) in wanted}, resamples, seed
    )


def _table(found: Mapping[str, Mapping[str, Estimate]]) -> Table:
    rows: list[list[str | Value]] = [
        [title, *(shown(scores.get(score), form) for scores in found.values())]
        for score, (title, form, _, _) in SCORES.items()
        if any(score in scores for scores in found.values())
    ]
    return Table(["", *found], rows)


def _minus(found: Mapping[str, Mapping[str, Estimate]]) -> Table:
    base, *others = found.values()
    rows: list[list[str | Value]] = []
    for score, (title, _, form, factor) in SCORES.items():
        if score in base:
            both = [(other[score] - base[score]) * factor if score in other else None for other in others]
            rows.append([title + (", points" if factor == 100 else ""), *(shown(each, form) for each in both)])
    return Table(["", *list(found)[1:]], rows)


def _plain(runs: list[Run]) -> Table:
    """What metrics.json has of each."""
    rows: list[list[str | Value]] = []
    for score, (title, form, _, _) in SCORES.items():
        values = [run.metrics.get(f"test/{score}") for run in runs]
        if any(value is not None for value in values):
            rows.append([title, *("–" if value is None else form.format(value) for value in values)])
    return Table(["", *(run.name for run in runs)], rows)


def _curves(runs: list[Run]) -> list[Block]:
    by_name = {run.name: run.curves for run in runs}
    columns = list(dict.fromkeys(name for run in runs for name in run.curves.shown))
    if not columns:
        return ["None of the runs kept curves: train with logger=[csv]."]
    drawn = [curves.figure(by_name, column) for column in columns]
    return ["Largest difference from the first run, at the steps that both logged:", _apart(runs, columns), *drawn]


def _apart(runs: list[Run], columns: list[str]) -> Table:
    """0 everywhere: the runs learned the same, which is what a refactoring has to show."""
    rows: list[list[str | Value]] = []
    for column in columns:
        base, *others = (dict(zip(*run.curves.columns.get(column, ((), ())), strict=True)) for run in runs)
        gaps = [[abs(other[step] - base[step]) for step in base.keys() & other.keys()] for other in others]
        rows.append([column, *(f"{max(gap):.3g}" if gap else "–" for gap in gaps)])
    return Table(["", *(run.name for run in runs[1:])], rows)
