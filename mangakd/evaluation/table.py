"""The table at the end of a run: teacher, mean of an ensemble's members, student without KD, student, and the references."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from mangakd.evaluation.judge import Judge
from mangakd.evaluation.report.blocks import Table as Block
from mangakd.evaluation.report.blocks import Value

MORE = {  # column → its title and format, beside the judge's scores
    "params": ("parameters", "{:,.0f}"),
    "megabytes": ("file", "{:.1f} MB"),
    "retention": ("retention", "{:.1%}"),
}
ROWS = {"teacher/": "teacher", "members/": "its members, mean", "baseline/": "student without KD", "": "student"}


REFERENCE = "reference/"


def reference(name: str) -> str:
    """The prefix of a reference's metrics."""
    return f"{REFERENCE}{name}/"


def titles(metrics: Mapping[str, float]) -> dict[str, str]:
    """Prefix of the metrics → the name of the row."""
    names = [key.split("/")[1] for key in metrics if key.startswith(REFERENCE)]
    return ROWS | {reference(name): name for name in dict.fromkeys(names)}


def columns(metrics: Mapping[str, float], judge: Judge) -> dict[str, tuple[str, str]]:
    """Column → its title and format: the scores that a model has, then sizes and retention."""
    scores = {
        name: (score.title, score.format)
        for name, score in judge.scores.items()
        if any(f"{prefix}test/{name}" in metrics for prefix in titles(metrics))
    }
    return scores | MORE


def rows(metrics: Mapping[str, float], judge: Judge) -> list[tuple[str, list[str]]]:
    """(name, cells) for each model that has test scores."""
    table = []
    for prefix, title in titles(metrics).items():
        if any(f"{prefix}test/{name}" in metrics for name in judge.scores):
            cells = []
            for column, (_, form) in columns(metrics, judge).items():
                value = _value(metrics, prefix, column)
                cells.append("–" if value is None else form.format(value))
            table.append((title, cells))
    return table


def _value(metrics: Mapping[str, float], prefix: str, column: str) -> float | None:
    owner = "student/" if prefix in ("", "baseline/") else prefix
    return metrics.get(f"{prefix}test/{column}", metrics.get(f"{owner}{column}"))


def show(metrics: Mapping[str, float], judge: Judge, title: str) -> None:
    table = Table(title=title)
    table.add_column("")
    for header, _ in columns(metrics, judge).values():
        table.add_column(header, justify="right")
    for name, cells in rows(metrics, judge):
        table.add_row(name, *cells)
    # A log file has no width, and rich would fold the table to 80 columns.
    Console(width=None if Console().is_terminal else 200).print(table)


def show_blocks(block: Block, title: str) -> None:
    """Print a table of the report on the terminal."""
    table = Table(title=title)
    for i, header in enumerate(block.headers):
        table.add_column(header, justify="right" if i else "left")
    for row in block.rows:
        table.add_row(*(" ".join(filter(None, cell)) if isinstance(cell, Value) else cell for cell in row))
    Console(width=None if Console().is_terminal else 160, markup=False).print(table)
