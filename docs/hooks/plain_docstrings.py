"""Griffe extension: docstrings are plain text, and their indented blocks (formulas, tables, examples) keep their layout.

Markdown would run an indented block that follows a line of text into that line.
"""

from typing import Any

import griffe

INDENT = "    "


class PlainDocstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Each block of indented lines becomes a fenced block; blank lines within it stay."""
    lines: list[str] = []
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith(INDENT) or (block and not line.strip()):
            block.append(line.removeprefix(INDENT))
            continue
        lines += _fence(block) if block else []
        block = []
        lines.append(line)
    return "\n".join(lines + (_fence(block) if block else []))


def _fence(block: list[str]) -> list[str]:
    return ["", "```text", *"\n".join(block).rstrip().split("\n"), "```", ""]
