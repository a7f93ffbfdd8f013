"""The table at the end of a run: teacher (an ensemble's members beside it), the same student without a teacher, student."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from mangakd.evaluation.report.blocks import Table as Shown
from mangakd.evaluation.report.blocks import Value

COLUMNS = {
    "accuracy": ("accuracy", "{:.1%}"),
    "macro_f1": ("macro-F1", "{:.1%}"),
    "agreement": ("agreement", "{:.1%}"),
    "kl": ("KL", "{:.3f}"),
    "ece": ("ECE", "{:.3f}"),
    "params": ("parameters", "{:,.0f}"),
    "megabytes": ("file", "{:.1f} MB"),
    "retention": ("retention", "{:.1%}"),
}
ROWS = {"teacher/": "teacher", "members/": "its members, mean", "baseline/": "student without KD", "": "student"}


def rows(metrics: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """(name, cells) for each model that has test scores."""
    found = []
    for prefix, title in ROWS.items():
        if f"{prefix}test/accuracy" in metrics:
            values = [_value(metrics, prefix, column) for column in COLUMNS]
            cells = ["–" if v is None else COLUMNS[c][1].format(v) for c, v in zip(COLUMNS, values, strict=True)]
            found.append((title, cells))
    return found


def _value(metrics: Mapping[str, float], prefix: str, column: str) -> float | None:
    sized = "student/" if prefix in ("", "baseline/") else prefix
    return metrics.get(f"{prefix}test/{column}", metrics.get(f"{sized}{column}"))


def show(metrics: Mapping[str, float], title: str) -> None:
    table = Table(title=title)
    table.add_column("")
    for header, _ in COLUMNS.values():
        table.add_column(header, justify="right")
    for name, cells in rows(metrics):
        table.add_row(name, *cells)
    # A log file has no width; the table must not be folded there.
    Console(width=None if Console().is_terminal else 140).print(table)


def show_blocks(shown: Shown, title: str) -> None:
    """A table of the report, on the terminal."""
    table = Table(title=title)
    for i, header in enumerate(shown.headers):
        table.add_column(header, justify="right" if i else "left")
    for row in shown.rows:
        table.add_row(*(" ".join(filter(None, cell)) if isinstance(cell, Value) else cell for cell in row))
    Console(width=None if Console().is_terminal else 160, markup=False).print(table)
