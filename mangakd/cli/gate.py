"""`python scripts/gate.py run=<folder>`: may the student ship? Exit code 1 when a line of its gate fails."""

import sys

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mangakd.cli import judges
from mangakd.cli.logs import start_logging
from mangakd.cli.report import gate_lines, run_folder
from mangakd.evaluation.gate import summary, verdicts
from mangakd.evaluation.report.measure import measure


def run(config: DictConfig) -> None:
    """Print the lines. Raises SystemExit(1) when one fails, UserError where the folder holds no finished run."""
    start_logging(None)
    folder = run_folder(config)
    judge = judges.of_run(folder)
    result = measure(folder, judge, config.resamples, config.seed)
    lines = verdicts(gate_lines(config, folder), judge, result.gate, str(folder))
    table = Table()
    for header in ("line", "", "required", "result"):
        table.add_column(header)
    for verdict in lines:
        table.add_row(verdict.name, verdict.word, verdict.required, verdict.result)
    # A log file has no width; commands in it must not be folded there.
    Console(width=None if Console().is_terminal else 200, markup=False).print(table)
    print(summary(lines))
    if any(verdict.passed is False for verdict in lines):
        sys.exit(1)
