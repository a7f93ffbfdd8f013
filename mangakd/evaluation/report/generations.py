"""The report's section on texts that the models wrote to the same prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mangakd.evaluation.bootstrap import Estimate, Statistic, bootstrap
from mangakd.evaluation.generations import DRAWN, FILE, GREEDY, Generation, read
from mangakd.evaluation.judge import Judge, Score
from mangakd.evaluation.report.blocks import Block, Section, Table, Value
from mangakd.evaluation.report.sections import NAMES, cell, difference, model_title

SHOWN = 5  # prompts


def section(run: Path, judge: Judge, resamples: int, seed: int) -> list[Section]:
    """One section, or none if the models of the run wrote nothing."""
    generations = read(run) if judge.written else []  # other judges score texts with the rows that they belong to
    if not generations:
        return []
    models = [name for name in NAMES if name in generations[0].texts]
    estimates = bootstrap(_statistics(generations, models, judge.written), resamples, seed)
    note = (
        f"Greedy answers to {len(generations):,} test prompts; {FILE} has all of them, and a drawn one beside each. Means are "
        "over the prompts for which a score has a meaning. Brackets: 95 % of bootstrap resamples of the prompts."
    )
    blocks: list[Block] = [note, _scores(estimates, models, judge.written), _examples(generations, models)]
    return [Section("What the models write", blocks)]


def _statistics(
    generations: Sequence[Generation], models: Sequence[str], scores: Mapping[str, Score]
) -> dict[str, Statistic]:
    """model/score → its mean over the prompts where it is no NaN."""
    statistics = {}
    for model in models:
        for name in scores:
            values = np.array([each.texts[model][GREEDY].scores[name] for each in generations])
            present = ~np.isnan(values)
            if present.any():
                features = np.stack([np.where(present, values, 0.0), present.astype(float)], 1)
                statistics[f"{model}/{name}"] = Statistic(features, _mean, np.inf)
    return statistics


def _mean(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without a row that the score is about
        mean: np.ndarray = sums[..., 0] / sums[..., 1]
        return mean


def _scores(estimates: Mapping[str, Estimate], models: Sequence[str], scores: Mapping[str, Score]) -> Table:
    pair = ("student", "baseline") if "baseline" in models else None
    rows: list[list[str | Value]] = []
    for name, score in scores.items():
        if f"student/{name}" not in estimates:
            continue
        cells = [cell(estimates.get(f"{model}/{name}"), score.format) for model in models]
        both = [] if pair is None else [difference(_between(estimates, name, *pair), score)]
        rows.append([score.text, *cells, *both])
    against = [] if pair is None else ["student − student without KD"]
    return Table(["greedy", *map(model_title, models), *against], rows)


def _between(estimates: Mapping[str, Estimate], name: str, one: str, other: str) -> Estimate | None:
    both = [estimates.get(f"{model}/{name}") for model in (one, other)]
    return None if None in both else both[0] - both[1]  # type: ignore[operator]


def _examples(generations: Sequence[Generation], models: Sequence[str]) -> Table:
    rows = [
        [each.example.question if way == GREEDY else "", way, each.example.reference if way == GREEDY else "", *own]
        for each in generations[:SHOWN]
        for way in (GREEDY, DRAWN)
        for own in [[each.texts[model][way].text for model in models]]
    ]
    return Table(["prompt", "", "reference", *map(model_title, models)], rows, texts=True)
