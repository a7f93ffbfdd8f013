"""The log of a rollout as a report: its decisions, its steps, and agreement, errors and times of both sides over time.

The log's counts grow within a step and begin at 0 with the next one. A decision's line is written before the decision takes
effect: it has the counts and the phase of the step that ends. The report takes differences of counts and joins lines that lie
close to each other, so that weeks of a rollout remain readable.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.evaluation.report.blocks import Figure, Section, Table, Value
from mangakd.evaluation.report.svg import Axis, Series, chart
from mangakd.evaluation.wilson import wilson
from mangakd.runtime.rollout.journal import read_lines
from mangakd.runtime.rollout.plan import COUNTS, PHASE_AFTER, RESETS

SPANS = 40  # points of a curve at most
Line = dict[str, Any]


@dataclass
class Span:
    """What happened in one stretch of time. minute: its end, since the start. ms: the last percentiles of each side."""

    minute: float
    share: float
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    ms: dict[str, dict[str, float] | None] = field(default_factory=dict)

    def rate(self, part: str, whole: str) -> float:
        return self.counts[part] / self.counts[whole] if self.counts[whole] else float("nan")


def read(log: Path) -> list[Line]:
    """Raises UserError for what is no log of a rollout."""
    if not log.is_file():
        raise UserError(f"log={log} is no file. Give the log: of the rollout's yaml, such as rollout.jsonl.")
    lines = read_lines(log)
    if not lines or any(not {"at", "share", "counts", "phase"} <= line.keys() for line in lines):
        raise UserError(
            f"log={log} is no log of a rollout. Give the log: of the rollout's yaml, such as rollout.jsonl."
        )
    return lines


def sections(lines: Sequence[Line]) -> list[Section]:
    first = next((line["rules"] for line in reversed(lines) if "rules" in line), None)
    parts = [
        Section("State", [state(lines)]),
        Section("Decisions", [decisions(lines)]),
        Section("Steps", [steps(lines)]),
    ]
    if first is not None and (curves := figures(spans(lines), first)):
        parts.append(Section("Over time", curves))
    return parts


def state(lines: Sequence[Line]) -> str:
    """One sentence on where the rollout stands."""
    last, starts = lines[-1], sum(line["event"] in ("restart", "new rules") for line in lines)
    again = f", restarts: {starts}" if starts else ""
    shows = "answers no question; its answers are compared only" if last["mode"] == "shadow" else _answers(last)
    phase = PHASE_AFTER[last["decision"]] if last["event"] == "decision" else last["phase"]
    return f"{last['at']}: {phase}; the student {shows}{again}."


def decisions(lines: Sequence[Line]) -> Table:
    rows: list[list[str | Value]] = [
        [
            line["at"], line["decision"], f"{line['from']:.0%} → {line['to']:.0%}", f"{line['seconds'] / 60:.1f}",
            f"{line['counts']['compared']:,}", _percent(line["counts"], "agreed", "compared"),
            f"{line['counts']['student_errors']:,} of {line['counts']['student']:,}", line["why"],
        ]
        for line in lines if line["event"] == "decision"
    ]  # fmt: skip
    head = ["at", "decision", "share", "minutes", "compared", "agreement", "errors", "why"]
    return Table(head, rows, texts=True)


def steps(lines: Sequence[Line]) -> Table:
    """The counts at the end of each step. Intervals: Wilson's, of a sample whose size the tests chose."""
    ends: list[Line] = []
    for line in lines:
        if ends and _same_step(ends[-1], line):
            ends[-1] = line
        else:
            ends.append(line)
    rows = [_step(line) for line in ends if line["counts"]["student"] + line["counts"]["incumbent"]]
    head = ["share", "student", "incumbent", "its errors", "incumbent's", "compared", "agreement", "dropped"]
    return Table(head, rows)


def spans(lines: Sequence[Line]) -> list[Span]:
    """At most SPANS of equal length. Stretches without a question are left out."""
    begin, end = (datetime.fromisoformat(line["at"]).timestamp() for line in (lines[0], lines[-1]))
    length, before = max(end - begin, 1e-9) / SPANS, dict.fromkeys(COUNTS, 0)
    result: dict[int, Span] = {}
    for line in lines:
        counts, now = line["counts"], datetime.fromisoformat(line["at"]).timestamp() - begin
        if line["event"] == "new rules":  # they begin a step before the line is written
            before = dict.fromkeys(COUNTS, 0)
        number = min(int(now / length), SPANS - 1)
        span = result.setdefault(number, Span(now / 60, line["share"]))
        span.minute, span.share = now / 60, line["share"]
        for name in COUNTS:
            span.counts[name] += counts[name] - before[name]
        span.ms |= {side: times for side, times in line.get("ms", {}).items() if times}
        before = dict.fromkeys(COUNTS, 0) if line.get("decision") in RESETS else counts
    return [span for span in result.values() if span.counts["student"] + span.counts["incumbent"]]


def figures(parts: Sequence[Span], rules: dict[str, Any]) -> list[Figure]:
    """rules: of the last start. Empty without a span."""
    if not parts:
        return []
    minutes, right = [span.minute for span in parts], rules["agreement"]
    ends = [min(0.0, *minutes), max(minutes)]
    limits = {
        "expected": right["expected"], "hold": right["expected"] - right["hold"],
        "roll back": right["expected"] - right["rollback"],
    }  # fmt: skip
    agreement = [Series("agreement", minutes, [span.rate("agreed", "compared") for span in parts])]
    agreement += [Series(name, ends, [limit, limit]) for name, limit in limits.items()]
    errors = [
        Series(side, minutes, [span.rate(f"{side}_errors", side) for span in parts])
        for side in ("student", "incumbent")
    ]
    errors.append(Series("roll back", ends, [rules["errors"]["rollback"]] * 2))
    times = [
        Series(f"{side}, {name}", minutes, [(span.ms.get(side) or {}).get(name, float("nan")) for span in parts])
        for side in ("student", "incumbent") for name in ("p50", "p95")
    ]  # fmt: skip
    share = [Series("share", minutes, [span.share for span in parts])]
    return [
        _figure("Share of the student", share, Axis("share", percent=True, low=0, high=1)),
        _figure("Agreement with the incumbent", agreement, Axis("agreement", percent=True)),
        _figure("Errors", errors, Axis("errors", percent=True, low=0)),
        _figure("Time to answer", times, Axis("milliseconds", low=0)),
    ]


def _figure(title: str, curves: Sequence[Series], axis: Axis) -> Figure:
    form = "{:.1%}" if axis.percent else "{:.1f}"
    rows = [[curve.name, form.format(curve.y[0]), form.format(curve.y[-1])] for curve in curves]
    return Figure(chart(title, curves, Axis("minutes"), axis), title, Table(["", "first", "latest"], rows))


def _answers(line: Line) -> str:
    return f"answers {line['to'] if line['event'] == 'decision' else line['share']:.0%} of the questions"


def _step(line: Line) -> list[str | Value]:
    counts = line["counts"]
    numbers = ("student", "incumbent", "student_errors", "incumbent_errors", "compared")
    shown = [f"{counts[name]:,}" for name in numbers]
    return [f"{line['share']:.0%}", *shown, _percent(counts, "agreed", "compared"), f"{counts['dropped']:,}"]


def _same_step(one: Line, other: Line) -> bool:
    """A decision's line shows its step at the end, so it belongs to the lines before it."""
    keys = [(line["step"], line["share"], line["phase"] == "rolled back") for line in (one, other)]
    return keys[0] == keys[1] and other["event"] != "new rules"


def _percent(counts: dict[str, int], part: str, whole: str) -> Value:
    if not counts[whole]:
        return Value("–")
    low, high = wilson(counts[part], counts[whole])
    return Value(f"{counts[part] / counts[whole]:.1%}", f"[{low:.1%}, {high:.1%}]")
