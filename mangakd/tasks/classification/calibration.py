"""The section on calibration: temperatures, ECE and entropy of each model, and a reliability diagram of each."""

from collections.abc import Mapping

from mangakd.core.run_folder import CALIBRATION, SMOOTH
from mangakd.evaluation.calibration import Bins
from mangakd.evaluation.report.blocks import Figure, Section, Table, Value
from mangakd.evaluation.report.measure import RunResult
from mangakd.evaluation.report.sections import cell, model_title, models
from mangakd.evaluation.report.svg import Axis, Series, chart
from mangakd.evaluation.statistics import SCORES, Answers


def section(
    result: RunResult, answers: Mapping[str, Answers], refit: Mapping[str, Answers], temperatures: Mapping[str, float]
) -> Section:
    """answers, refit: model → its answers on test, as trained and at its temperature."""
    rows: list[list[str | Value]] = []
    for name in models(result):
        temperature = temperatures.get(name)
        rows.append([
            model_title(name), f"{temperature:.2f}" if temperature else "–",
            *(cell(result.scores.get((name, score)), SCORES[score].format) for score in ("ece", "ece_refit")),
            cell(result.scores[name, "entropy"], "{:.3f}"),
        ])  # fmt: skip
    note = (
        "The temperature is refit on validation (above 1: the model was too sure) and judged on test. Dots on the diagonal: "
        "as often right as sure. Their area is the share of answers in the bin."
    )
    notes = [note, *_of_targets(result)]
    table = Table(["", "temperature", SCORES["ece"].text, SCORES["ece_refit"].text, "entropy, nats"], rows)
    figures = []
    for name in models(result):
        sides = {"as trained": answers[name]}
        if name in refit:
            sides[f"after refit, T = {temperatures[name]:.2f}"] = refit[name]
        figures.append(_reliability(name, {title: Bins.of(side) for title, side in sides.items()}))
    return Section("Calibration", [*notes, table, *figures])


def _of_targets(result: RunResult) -> list[str]:
    """What was done to the teacher's probabilities before the student learned from them."""
    temperature, share = result.metrics.get(CALIBRATION), result.metrics.get(SMOOTH)
    if temperature is None:
        return []
    parts = [f"divided by T = {temperature:.3g}, fitted on validation (teacher.calibrate)"] if temperature != 1 else []
    parts += [f"cut at a probability of {1 - share:.3g} (teacher.smooth)"] if share else []
    return (
        [f"The teacher's logits are {' and '.join(parts)}; its row and its diagram show the result."] if parts else []
    )


def _reliability(name: str, sides: Mapping[str, Bins]) -> Figure:
    series = [Series(side, b.confidence.tolist(), b.right.tolist(), b.share.tolist()) for side, b in sides.items()]
    axes = (Axis("confidence", percent=True, low=0, high=1), Axis("share that is right", percent=True, low=0, high=1))
    rows = [
        [side, f"{c:.3f}", f"{r:.3f}", f"{s:.1%}"]
        for side, b in sides.items()
        for c, r, s in zip(b.confidence, b.right, b.share, strict=True)
    ]
    numbers = Table(["", "confidence", "right", "answers"], rows)
    title = f"reliability: {model_title(name)}"
    return Figure(chart(title, series, *axes, diagonal=True), title, numbers)
