"""report.md and report.html of a run folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mangakd.evaluation.bootstrap import RESAMPLES
from mangakd.evaluation.gate import Verdict, judged
from mangakd.evaluation.report import export, html, markdown, mistakes, sections
from mangakd.evaluation.report.blocks import Section, Verbatim
from mangakd.evaluation.report.measure import Measured, measure


def write_report(run: Path, gate: Mapping[str, Any], resamples: int = RESAMPLES, seed: int = 0) -> list[Verdict]:
    """Both files, in the run folder. gate: the entries of conf/gate, {} for none. Raises UserError for no finished run."""
    found = measure(run, resamples, seed)
    verdicts = judged(gate, found.gate, str(run))
    write(run / "report", f"KD report: {run.resolve().name}", contents(run, found, verdicts))
    return verdicts


def contents(run: Path, found: Measured, verdicts: Sequence[Verdict]) -> list[Section]:
    parts = [
        sections.headline(found, verdicts), sections.scores(found), sections.differences(found), sections.calibration(found),
        mistakes.confused(found), mistakes.disagreements(found), sections.learning(run), sections.size(found),
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
