"""`python scripts/gate.py run=<folder>`: may the student ship? Exit code 1 when a line of conf/gate fails."""

import sys

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mangakd.cli.logs import start_logging
from mangakd.cli.report import gate_lines, run_folder
from mangakd.evaluation.gate import judged, summary
from mangakd.evaluation.report.measure import measure


def run(config: DictConfig) -> None:
    """Print the lines. Raises SystemExit(1) when one fails, UserError where the folder holds no finished run."""
    start_logging(None)
    folder = run_folder(config)
    verdicts = judged(gate_lines(config), measure(folder, config.resamples, config.seed).gate, str(folder))
    table = Table()
    for header in ("line", "", "wanted", "found"):
        table.add_column(header)
    for verdict in verdicts:
        table.add_row(verdict.name, verdict.word, verdict.wanted, verdict.found)
    # A log file has no width; commands in it must not be folded there.
    Console(width=None if Console().is_terminal else 200, markup=False).print(table)
    print(summary(verdicts))
    if any(verdict.passed is False for verdict in verdicts):
        sys.exit(1)
