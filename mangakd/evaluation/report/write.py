"""report.md and report.html of a run folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mangakd.evaluation.bootstrap import RESAMPLES
from mangakd.evaluation.gate import Verdict, verdicts
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.report import export, html, markdown, sections
from mangakd.evaluation.report.blocks import Section, Verbatim
from mangakd.evaluation.report.measure import Measured, measure


def write_report(
    run: Path, judge: Judge, gate: Mapping[str, Any], resamples: int = RESAMPLES, seed: int = 0
) -> list[Verdict]:
    """Both files, in the run folder. gate: the entries of conf/gate, {} for none. Raises UserError for no finished run."""
    measured = measure(run, judge, resamples, seed)
    lines = verdicts(gate, judge, measured.gate, str(run))
    write(run / "report", f"KD report: {run.resolve().name}", contents(run, measured, lines))
    return lines


def contents(run: Path, measured: Measured, lines: Sequence[Verdict]) -> list[Section]:
    parts = [
        sections.headline(measured, lines), sections.scores(measured), sections.differences(measured),
        *measured.details.sections(measured), sections.learning(run, measured.judge), sections.size(measured),
        *export.section(run),
    ]  # fmt: skip
    config = run / "config.yaml"
    if config.is_file():
        parts.append(Section("Configuration", [Verbatim("config.yaml", config.read_text())]))
    return parts


def write(stem: Path, title: str, parts: Sequence[Section]) -> None:
    """<stem>.html and <stem>.md, each written aside and renamed."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending, page in (("html", html.page), ("md", markdown.page)):
        scratch = stem.with_name(f"{stem.name}.partial.{ending}")
        scratch.write_text(page(title, parts), encoding="utf-8")
        os.replace(scratch, stem.with_name(f"{stem.name}.{ending}"))
