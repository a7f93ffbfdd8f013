"""Sections → Markdown. A figure becomes its table of numbers, which is readable in a terminal and in a diff."""

from collections.abc import Sequence

from mangakd.evaluation.report.blocks import Block, Figure, Section, Table, Value, Verbatim


def page(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.title}", *map(_block, section.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Verbatim):
        return f"{block.title}:\n\n```yaml\n{block.text.rstrip()}\n```"
    if isinstance(block, Figure):
        return f"{block.caption}\n\n{table(block.numbers)}"
    return table(block)


def table(data: Table) -> str:
    align = "---" if data.texts else "---:"
    rules = ["---", *[align] * (len(data.headers) - 1)]
    rows = [data.headers, rules, *([_cell(cell) for cell in row] for row in data.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: str | Value) -> str:
    value = cell if isinstance(cell, Value) else Value(cell)
    text = f"{value.text} {value.interval}".strip()
    # Escape characters that end a cell or a row, or that mean something in Markdown or HTML.
    for special in ("\\", "|", "`", "*", "_", "<", "["):
        text = text.replace(special, f"\\{special}") if not value.interval else text
    return " ".join(text.split())
