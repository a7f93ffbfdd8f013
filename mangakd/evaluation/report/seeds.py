"""One run under several seeds: the spread of each number, and the seeds that differ."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from mangakd.evaluation.judge import Judge, Score
from mangakd.evaluation.report.blocks import Section, Table, Value
from mangakd.evaluation.report.sections import NAMES
from mangakd.evaluation.sweep import SEED, Point, Spread, SweepRun

PREFIXES = {"student": "", "baseline": "baseline/", "teacher": "teacher/"}  # of a model's metrics
TEACHER = "the teacher's fine-tuning"
MEANINGS = {
    SEED: "first weights, order of batches and dropout of student and baseline",
    "teacher.fit.seed": TEACHER,
    "teacher.seed": TEACHER,
    "teacher.seeds": TEACHER,
    "data.split_seed": "which rows limits, splits and labelled_share take",
    "augment.seed": "the new texts of augment",
}


@dataclass(frozen=True)
class Line:
    """One number over all runs. form: its format. values: (n), NaN if a run lacks the number."""

    title: str
    form: str
    values: np.ndarray

    def text(self, number: float) -> str:
        return "–" if math.isnan(number) else self.form.format(number)

    @property
    def mean(self) -> Value:
        """The mean with its 95 % interval over seeds."""
        spread = Spread(self.values)
        if math.isnan(spread.mean):
            return Value("–")
        interval = f"[{', '.join(map(self.text, spread.interval))}]" if np.ptp(self.values) else "(all the same)"
        return Value(self.text(spread.mean), interval)

    @property
    def ends(self) -> tuple[str, str]:
        return self.text(self.values.min()), self.text(self.values.max())


def sections(point: Point, score: str, judge: Judge) -> list[Section]:
    """The sections on a point with several seeds. score: the name of the score by which the runs chose their checkpoint."""
    lines = [line for line in _lines(point, score, judge) if not np.isnan(line.values).all()]
    note = (
        "Brackets: 95 % interval of the mean over seeds (Student's t). This interval covers other seeds. The intervals in the "
        "report of each run cover other test rows."
    )
    table = Table(["test", f"mean of {len(point.runs)} seeds", "lowest", "highest"], [
        [line.title, line.mean, *line.ends] for line in lines
    ])  # fmt: skip
    each = Table([SEED, *(line.title for line in lines), "run"], [
        [_seed(run), *(line.text(value) for line, value in zip(lines, values, strict=True)), run.folder.name]
        for run, values in zip(point.runs, np.transpose([line.values for line in lines]), strict=True)
    ])  # fmt: skip
    return [
        Section("Over seeds", [_headline(point, score, judge.score(score)), what_differs(point), table, note]),
        Section("Each seed", [each]),
    ]


def _lines(point: Point, name: str, judge: Judge) -> list[Line]:
    score = judge.score(name)
    lines = {
        model: Line(f"{score.text}, {NAMES[model]}", score.format, _test_scores(point, name, model))
        for model in PREFIXES
    }
    others = [other for other in judge.scores if other != name]
    return [
        lines["student"], lines["baseline"], _gain(point, name, score), lines["teacher"],
        Line("retention", "{:.1%}", _test_scores(point, "retention")),
        *(Line(judge.scores[other].text, judge.scores[other].format, _test_scores(point, other)) for other in others),
    ]  # fmt: skip


def _test_scores(point: Point, score: str, model: str = "student") -> np.ndarray:
    """(n), NaN if a run lacks the score."""
    return np.array([run.metrics.get(f"{PREFIXES[model]}test/{score}", math.nan) for run in point.runs])


def _gain(point: Point, name: str, score: Score) -> Line:
    """The teacher's effect for each seed: both students have the same seed. Above 0, the student with the teacher is better."""
    gain = score.factor * score.gain(_test_scores(point, name), _test_scores(point, name, "baseline"))
    sides = [NAMES["student"], NAMES["baseline"]]
    title = " − ".join(sides if score.higher else sides[::-1])
    return Line(f"gain: {title}{score.difference_unit}", score.difference_format, gain)


def _headline(point: Point, name: str, score: Score) -> str:
    gain, runs = _gain(point, name, score), len(point.runs)
    student = score.format.format(_test_scores(point, name).mean())
    sentence = f"{score.text} of the student on test: {student} in the mean of {runs} seeds."
    if np.isnan(gain.values).any():
        return f"{sentence} What the teacher adds is not known: the runs have no baseline (baseline=true)."
    low, high = Spread(gain.values).interval
    word = "helps" if low > 0 else "harms" if high < 0 else "makes no difference that these seeds can show"
    return (
        f"{sentence} The teacher {word}: {' '.join(gain.mean)} over the same student without it, from {' to '.join(gain.ends)}, "
        f"above 0 with {(gain.values > 0).sum()} of {runs} seeds."
    )


def what_differs(point: Point) -> str:
    """Which seeds differ, whether the runs share a teacher, and whether the runs have the same test rows."""
    seeds = [dict(_seeds(run)) for run in point.runs]
    keys = list(dict.fromkeys(key for one in seeds for key in one))
    differ = [key for key in keys if any(one.get(key) != seeds[0].get(key) for one in seeds)]
    varying = {MEANINGS.get(key, key) for key in differ}
    same = [key for key in keys if MEANINGS.get(key, key) not in varying]
    parts = [f"Differs from run to run: {_describe_keys(differ)}."] if differ else []
    if same:
        one_each = {MEANINGS.get(key, key): key for key in reversed(same)}.values()
        overrides = " ".join(f"'{key}=${{{SEED}}}'" for key in reversed(one_each))
        parts.append(f"The same in all: {_describe_keys(same)}. To let them follow the seed, add {overrides}.")
    teachers = {
        tuple(sorted(item for item in run.metrics.items() if item[0].startswith("teacher/test/"))) for run in point.runs
    }
    if len(teachers) == 1 and TEACHER in varying:
        parts.append("All runs have the same teacher nevertheless: it was fine-tuned before.")
    first = point.runs[0].test
    if first is not None and not all(run.test is not None and first.same_rows(run.test) for run in point.runs):
        parts.append("The runs were tested on different rows, which are a part of this spread.")
    return " ".join(parts)


def _describe_keys(keys: list[str]) -> str:
    """The meanings of keys, each followed by its keys."""
    meanings: dict[str, list[str]] = {}
    for key in keys:
        meanings.setdefault(MEANINGS.get(key, ""), []).append(key)
    return ", ".join(
        f"{meaning} ({', '.join(own)})" if meaning else ", ".join(own) for meaning, own in meanings.items()
    )


def _seed(run: SweepRun) -> str:
    return str(dict(_seeds(run)).get(SEED, run.settings.get(SEED, "–")))


def _seeds(run: SweepRun) -> Iterator[tuple[str, Any]]:
    """Yield key and value of every seed in the run's config."""
    file = run.folder / "config.yaml"
    if file.is_file():
        yield from _within(yaml.safe_load(file.read_text()))


def _within(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _within(value, f"{prefix}{name}.")
        elif name in (SEED, "seeds") or name.endswith("_seed"):
            yield f"{prefix}{name}", value
