"""The sections of a run's report, in the order in which a reader asks: may it ship, how good, how sure, where wrong, why."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mangakd.core.invocation import command
from mangakd.evaluation.bootstrap import Estimate
from mangakd.evaluation.calibration import Bins
from mangakd.evaluation.gate import Verdict, summary
from mangakd.evaluation.report import curves
from mangakd.evaluation.report.blocks import Block, Figure, Section, Table, Value
from mangakd.evaluation.report.measure import Measured
from mangakd.evaluation.report.svg import Axis, Series, chart

NAMES = {"teacher": "teacher", "baseline": "student without KD", "student": "student"}
MOST_NAMED = 10
ROWS_ONLY = "Intervals are over test rows only: another seed may move a run by more (sweep=seeds shows by how much)."
# score: title, how a value is shown, how a difference is shown, its factor (100: points)
SCORES = {
    "accuracy": ("accuracy", "{:.1%}", "{:+.1f}", 100),
    "macro_f1": ("macro-F1", "{:.1%}", "{:+.1f}", 100),
    "rare_accuracy": ("rare-class accuracy", "{:.1%}", "{:+.1f}", 100),
    "agreement": ("agreement with the teacher", "{:.1%}", "{:+.1f}", 100),
    "kl": ("KL(teacher ‖ student), nats", "{:.3f}", "{:+.3f}", 1),
    "ece": ("ECE as trained", "{:.3f}", "{:+.3f}", 1),
    "ece_refit": ("ECE after refit", "{:.3f}", "{:+.3f}", 1),
}


def shown(estimate: Estimate | None, form: str) -> Value:
    if estimate is None or np.isnan(estimate.value):
        return Value("–")
    if np.isinf(estimate.value):  # KL, where the student rules out a class that the teacher does not
        return Value("∞")
    return Value(form.format(estimate.value), f"[{', '.join(map(form.format, estimate.interval))}]")


def models(found: Measured) -> list[str]:
    return [name for name in NAMES if name in found.answers]


def headline(found: Measured, verdicts: Sequence[Verdict]) -> Section:
    rows = len(found.test.texts)
    kept = shown(found.retention, "{:.1%}")
    said = (
        f"The student is right on {found.scores['student', 'accuracy'].value:.1%} of {rows:,} test rows, and keeps "
        f"{kept.text} {kept.interval} of the teacher's accuracy."
    )
    above = found.difference("accuracy", "baseline")
    if above is None:
        lift = "Whether the teacher helped is not known: the run has no baseline (baseline=true)."
    else:
        low, high = (100 * end for end in above.interval)
        word = "helped" if low > 0 else "harmed" if high < 0 else "made no difference that these rows can show"
        lift = f"The teacher {word}: {100 * above.value:+.1f} points [{low:+.1f}, {high:+.1f}] over the same student without it."
    lift += f" {ROWS_ONLY}"
    members = found.metrics.get("members/test/accuracy")
    alone = "" if members is None else f" The members of the ensemble are right on {members:.1%} each, in the mean."
    blocks: list[Block] = [said + alone, lift]
    if verdicts:
        blocks += [f"Gate: {summary(list(verdicts))}", gate_table(verdicts)]
    return Section("May it ship?", blocks)


def gate_table(verdicts: Sequence[Verdict]) -> Table:
    rows = [[v.name, v.word, v.wanted, v.found] for v in verdicts]
    return Table(["line", "", "wanted", "found"], rows, texts=True)


def scores(found: Measured) -> Section:
    names = models(found)
    rows: list[list[str | Value]] = []
    for score, (title, form, _, _) in SCORES.items():
        if ("student", score) in found.scores:
            rows.append([title, *(shown(found.scores.get((name, score)), form) for name in names)])
    note = f"Brackets: 95 % of {found.resamples:,} bootstrap resamples of the test rows. {ROWS_ONLY}"
    blocks: list[Block] = [note, Table(["test", *(NAMES[name] for name in names)], rows)]
    if rare := [label for label, is_rare in zip(found.test.labels, found.test.rare, strict=True) if is_rare]:
        more = f" and {len(rare) - MOST_NAMED} more" if len(rare) > MOST_NAMED else ""
        named = ", ".join(rare[:MOST_NAMED])
        blocks.append(f"Rare (less than half of an equal share of the training rows): {named}{more}.")
    return Section("Scores", blocks)


def differences(found: Measured) -> Section:
    others = [name for name in models(found) if name != "student"][::-1]
    rows: list[list[str | Value]] = []
    for score, (title, _, form, factor) in SCORES.items():
        cells = [found.difference(score, name) for name in others]
        if any(cell is not None for cell in cells):
            rows.append(
                [
                    title + (", points" if factor == 100 else ""),
                    *(shown(c * factor if c is not None else None, form) for c in cells),
                ]
            )
    note = (
        "Paired: both models on the same resampled rows. An interval that holds 0 is no evidence of a difference; one that "
        "does not is evidence for these two runs, not for their recipes under other seeds."
    )
    return Section(
        "The student against the others", [note, Table(["", *(f"student − {NAMES[n]}" for n in others)], rows)]
    )


def calibration(found: Measured) -> Section:
    rows: list[list[str | Value]] = []
    for name in models(found):
        temperature = found.temperatures.get(name)
        rows.append([
            NAMES[name], f"{temperature:.2f}" if temperature else "–", shown(found.scores[name, "ece"], "{:.3f}"),
            shown(found.scores.get((name, "ece_refit")), "{:.3f}"), shown(found.scores[name, "entropy"], "{:.3f}"),
        ])  # fmt: skip
    note = (
        "The temperature is refit on validation (above 1: the model was too sure) and judged on test. Dots on the diagonal: "
        "as often right as sure. Their area is the share of answers in the bin."
    )
    table = Table(["", "temperature", "ECE as trained", "ECE after refit", "entropy, nats"], rows)
    return Section("Calibration", [note, table, *(_reliability(found, name) for name in models(found))])


def _reliability(found: Measured, name: str) -> Figure:
    sides = {"as trained": Bins.of(found.answers[name])}
    if name in found.refit:
        sides[f"after refit, T = {found.temperatures[name]:.2f}"] = Bins.of(found.refit[name])
    series = [Series(side, b.confidence.tolist(), b.right.tolist(), b.share.tolist()) for side, b in sides.items()]
    axes = (Axis("confidence", percent=True, low=0, high=1), Axis("share that is right", percent=True, low=0, high=1))
    rows = [
        [side, f"{c:.3f}", f"{r:.3f}", f"{s:.1%}"]
        for side, b in sides.items()
        for c, r, s in zip(b.confidence, b.right, b.share, strict=True)
    ]
    numbers = Table(["", "confidence", "right", "answers"], rows)
    title = f"reliability: {NAMES[name]}"
    return Figure(chart(title, series, *axes, diagonal=True), title, numbers)


def learning(run: Path) -> Section:
    return Section("Learning curves", curves.blocks(curves.read(run)))


def size(found: Measured) -> Section:
    m = found.metrics
    rows: list[list[str | Value]] = []
    for title, key, form in (("parameters", "params", "{:,.0f}"), ("weights, MB", "megabytes", "{:.1f}")):
        sides = [m.get(f"{model}/{key}") for model in ("teacher", "student")]
        ratio = f"{sides[0] / sides[1]:.1f} ×" if sides[0] and sides[1] else "–"
        rows.append([title, *(form.format(v) if v is not None else "–" for v in sides), ratio])
    blocks: list[Block] = [Table(["", "teacher", "student", "teacher / student"], rows)]
    if found.latency:
        blocks.append(
            "Latency of the student, one text at a time, text to answer: median {p50_ms:.1f} ms, 95th percentile {p95_ms:.1f} "
            "ms ({texts} texts, {threads} thread, {machine}).".format(**found.latency)
        )
    else:
        blocks.append(f"Latency was not measured ({command('report')} run=… latency=true).")
    if "train/samples_per_second" in m:
        blocks.append(f"Training went through {m['train/samples_per_second']:,.0f} rows a second.")
    return Section("Size and speed", blocks)
