"""metrics.json: whoever reads a run's folder while the run ends sees all metrics or those before."""

import os
from pathlib import Path

import pytest

from mangakd.core.run_folder import LAST, metrics_of
from mangakd.runs.results import write_metrics


def test_metrics_are_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of a sweep reads the folder of each run again and again."""
    at_the_end: list[dict[str, float]] = []
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        at_the_end.append(metrics_of(tmp_path))  # everything is written, and nothing of it is to be seen
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    for value in (1.0, 2.0):
        write_metrics(tmp_path, {LAST: value})
    assert at_the_end == [{}, {LAST: 1.0}] and metrics_of(tmp_path) == {LAST: 2.0}
