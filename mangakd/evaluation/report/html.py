"""Sections → one HTML file without scripts, fonts or requests. Wide tables scroll inside their own box."""

import re
from collections.abc import Sequence
from html import escape

from mangakd.evaluation.report.blocks import Block, Figure, Section, Table, Value, Verbatim

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: #fff; color: #1b1b1b;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top;
  overflow-wrap: normal; }
th:first-child, td:first-child, .texts th, .texts td { text-align: left; }
.texts td { overflow-wrap: break-word; }
thead th { border-bottom: 2px solid #888; }
small { display: block; color: #555; white-space: nowrap; }
.pass { color: #00613f; font-weight: 600; }
.fail { color: #a40000; font-weight: 600; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 19rem; min-width: 0; max-width: 22rem; }
svg { width: 100%; height: auto; display: block; }
summary { font-size: 0.85rem; color: #444; }
@media (max-width: 40rem) {  /* a phone: sentences one below the other, numbers closer together */
  .texts thead { display: none; }
  .texts tr { display: block; padding: 0.4rem 0; border-bottom: 1px solid #bbb; }
  .texts td { display: block; overflow-wrap: anywhere; padding: 0.05rem 0.3rem; border: 0; }
  .texts td:first-child { font-weight: 600; }
  .texts td[data-of]:not(:first-child)::before { content: attr(data-of) ": "; color: #555; font-weight: 400; }
  th, td { padding: 0.3rem 0.25rem; font-size: 0.8rem; }
  small { white-space: normal; }
}
@media print {  /* paper does not scroll */
  body { max-width: none; }
  h2 { break-after: avoid; }
  tr, figure { break-inside: avoid; }
  .wide { overflow: visible; }
  th, td { overflow-wrap: anywhere; }
}
pre { overflow-x: auto; font-size: 0.8rem; background: #f5f5f5; padding: 0.8rem; overflow-wrap: normal; }
"""
_BREAKS = re.compile(r"(?<=[_,=/])")  # a browser may break a run's long name after these
_CLASSES = {"pass": "pass", "FAIL": "fail"}


def page(title: str, sections: Sequence[Section]) -> str:
    body = "\n".join(
        f"<section><h2>{escape(section.title)}</h2>\n{_blocks(section.blocks)}</section>" for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _blocks(blocks: Sequence[Block]) -> str:
    """Figures that follow each other share a grid."""
    parts: list[str] = []
    within = False
    for block in blocks:
        if isinstance(block, Figure) != within:
            within = not within
            parts.append('<div class="figures">' if within else "</div>")
        parts.append(_block(block))
    return "\n".join([*parts, "</div>" if within else ""])


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, Verbatim):
        return f"<details><summary>{escape(block.title)}</summary><pre>{escape(block.text)}</pre></details>"
    if isinstance(block, Figure):
        numbers = f"<details><summary>numbers</summary>{_table(block.numbers)}</details>"
        return f"<figure>{block.svg}{numbers}</figure>"  # no caption: the svg contains its title
    return _table(block)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_BREAKS.sub("<wbr>", escape(header))}</th>' for header in table.headers)
    of = table.headers if table.texts else [""] * len(table.headers)
    rows = "\n".join(f"<tr>{''.join(map(_cell, row, of))}</tr>" for row in table.rows)
    kind = ' class="texts"' if table.texts else ""
    return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'


def _cell(cell: str | Value, of: str) -> str:
    """of: the column's header, which a phone shows in front of the cell instead of a header row."""
    value = cell if isinstance(cell, Value) else Value(cell)
    small = f"<small>{escape(value.interval)}</small>" if value.interval else ""
    kind = f' class="{_CLASSES[value.text]}"' if value.text in _CLASSES else ""
    label = f' data-of="{escape(of)}"' if of else ""
    return f"<td{kind}{label}>{escape(value.text)}{small}</td>"
