"""report.md and report.html of a run folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mangakd.evaluation.bootstrap import RESAMPLES
from mangakd.evaluation.gate import Verdict, verdicts
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.report import export, generations, html, markdown, sections
from mangakd.evaluation.report.blocks import Section, Verbatim
from mangakd.evaluation.report.measure import RunResult, measure


def write_report(
    run: Path, judge: Judge, gate: Mapping[str, Any], resamples: int = RESAMPLES, seed: int = 0
) -> list[Verdict]:
    """Write both files to the run folder. gate: entries of conf/gate, {} for none. Raises UserError for an unfinished run."""
    result = measure(run, judge, resamples, seed)
    lines = verdicts(gate, judge, result.gate, str(run))
    texts = generations.section(run, judge, resamples, seed)
    write(run / "report", f"KD report: {run.resolve().name}", contents(run, result, lines, texts))
    return lines


def contents(run: Path, result: RunResult, lines: Sequence[Verdict], texts: Sequence[Section] = ()) -> list[Section]:
    """texts: the section on what the models write, if they wrote something."""
    parts = [
        sections.headline(result, lines), sections.scores(result), sections.differences(result),
        *texts, *result.details.sections(result), sections.learning(run, result.judge), sections.size(result),
        *export.section(run),
    ]  # fmt: skip
    config = run / "config.yaml"
    if config.is_file():
        parts.append(Section("Configuration", [Verbatim("config.yaml", config.read_text())]))
    return parts


def write(stem: Path, title: str, parts: Sequence[Section]) -> None:
    """Write <stem>.html and <stem>.md, each as a scratch file that is then renamed."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending, page in (("html", html.page), ("md", markdown.page)):
        scratch = stem.with_name(f"{stem.name}.partial.{ending}")
        scratch.write_text(page(title, parts), encoding="utf-8")
        os.replace(scratch, stem.with_name(f"{stem.name}.{ending}"))
