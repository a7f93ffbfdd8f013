"""The sections of a run's report, in the order of a reader's questions: may it ship, how good, how sure, where wrong, why."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mangakd.core.invocation import command
from mangakd.evaluation.bootstrap import Estimate
from mangakd.evaluation.gate import Verdict, summary
from mangakd.evaluation.judge import Judge, Score
from mangakd.evaluation.report import curves
from mangakd.evaluation.report.blocks import Block, Section, Table, Value
from mangakd.evaluation.report.measure import RunResult

NAMES = {"teacher": "teacher", "baseline": "student without KD", "student": "student"}
ROWS_ONLY = "Intervals are over test rows only: another seed may move a run by more (sweep=seeds shows by how much)."


def cell(estimate: Estimate | None, form: str) -> Value:
    if estimate is None or np.isnan(estimate.value):
        return Value("–")
    if np.isinf(estimate.value):  # KL: the student has logit -inf for a class that the teacher allows
        return Value("∞")
    return Value(form.format(estimate.value), f"[{', '.join(map(form.format, estimate.interval))}]")


def models(result: RunResult) -> list[str]:
    """Teacher, baseline, student, and then the references."""
    order = [*NAMES]
    return sorted(result.test.models, key=lambda name: order.index(name) if name in NAMES else len(order))


def model_title(model: str) -> str:
    """Of a column; a reference has its own name."""
    return NAMES.get(model, model)


def headline(result: RunResult, lines: Sequence[Verdict]) -> Section:
    main, rows = result.main, len(result.test.texts)
    retention = cell(result.retention, "{:.1%}")
    value = main.format.format(result.scores["student", result.judge.main].value)
    share = f"{retention.text} {retention.interval}"
    sentence = (
        f"It keeps {share} of the teacher's {main.title}." if main.higher else f"The teacher's is {share} of that."
    )
    student = f"The student's {main.title} is {value} on {rows:,} test rows. {sentence}"
    lift = f"{_lift(result)} {ROWS_ONLY}"
    members = result.metrics.get(f"members/test/{result.judge.main}")
    alone = "" if members is None else f" The mean of the ensemble's members is {main.format.format(members)}."
    blocks: list[Block] = [student + alone, lift]
    if lines:
        blocks += [f"Gate: {summary(list(lines))}", gate_table(lines)]
    return Section("May it ship?", blocks)


def _lift(result: RunResult) -> str:
    """Say in one sentence whether the teacher helped."""
    gain = result.gain(result.judge.main, "baseline")
    if gain is None:
        return "Whether the teacher helped is not known: the run has no baseline (baseline=true)."
    low, high = gain.interval
    word = "helped" if low > 0 else "harmed" if high < 0 else "made no difference that these rows can show"
    main = result.main
    value, low_end, high_end = (main.difference_format.format(number) for number in (gain.value, low, high))
    unit = " points" if main.percent else f" better {main.title}"
    return f"The teacher {word}: {value}{unit} [{low_end}, {high_end}] over the same student without it."


def gate_table(lines: Sequence[Verdict]) -> Table:
    rows = [[v.name, v.word, v.required, v.result] for v in lines]
    return Table(["line", "", "required", "result"], rows, texts=True)


def scores(result: RunResult) -> Section:
    names = models(result)
    rows: list[list[str | Value]] = [
        [score.text, *(cell(result.scores.get((model, name)), score.format) for model in names)]
        for name, score in result.judge.scores.items()
        if ("student", name) in result.scores
    ]
    note = f"Brackets: 95 % of {result.resamples:,} bootstrap resamples of the test rows. {ROWS_ONLY}"
    table = Table(["test", *(model_title(name) for name in names)], rows)
    return Section("Scores", [note, table, *result.details.notes])


def differences(result: RunResult) -> Section:
    others = [name for name in models(result) if name != "student"][::-1]
    rows: list[list[str | Value]] = []
    for name, score in result.judge.scores.items():
        both = [result.difference(name, other) for other in others]
        if any(each is not None for each in both):
            rows.append([score.text + score.difference_unit, *(difference(each, score) for each in both)])
    note = (
        "Paired: both models on the same resampled rows. An interval that holds 0 is no evidence of a difference; one that "
        "does not is evidence for these two runs, not for their recipes under other seeds."
    )
    return Section(
        "The student against the others", [note, Table(["", *(f"student − {model_title(n)}" for n in others)], rows)]
    )


def difference(estimate: Estimate | None, score: Score) -> Value:
    """The cell of a difference of two values of a score."""
    return cell(None if estimate is None else estimate * score.factor, score.difference_format)


def learning(run: Path, judge: Judge) -> Section:
    return Section("Learning curves", curves.blocks(curves.read(run), judge))


def size(result: RunResult) -> Section:
    m = result.metrics
    rows: list[list[str | Value]] = []
    for title, key, form in (("parameters", "params", "{:,.0f}"), ("weights, MB", "megabytes", "{:.1f}")):
        sides = [m.get(f"{model}/{key}") for model in ("teacher", "student")]
        ratio = f"{sides[0] / sides[1]:.1f} ×" if sides[0] and sides[1] else "–"
        rows.append([title, *(form.format(v) if v is not None else "–" for v in sides), ratio])
    blocks: list[Block] = [Table(["", "teacher", "student", "teacher / student"], rows)]
    if result.latency:
        blocks.append(
            "Latency of the student, {what} at a time, text to answer: median {p50_ms:.1f} ms, 95th percentile {p95_ms:.1f} "
            "ms ({texts} questions, {threads} thread, {machine}).".format(**{"what": "one text", **result.latency})
        )
    else:
        blocks.append(f"Latency was not measured ({command('report')} run=… latency=true).")
    if "train/samples_per_second" in m:
        blocks.append(f"Training went through {m['train/samples_per_second']:,.0f} rows a second.")
    return Section("Size and speed", blocks)
