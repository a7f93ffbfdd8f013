"""A heat map as SVG text: one score over two keys of a sweep, its number in every cell. Dark is good; the best has a frame."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from mangakd.evaluation.judge import Score

WIDTH, LEFT, TOP, CELL, BOTTOM = 360, 66, 30, 40, 46
LIGHT, DARK = (240, 246, 252), (0, 78, 140)


def heatmap(
    title: str, columns: Sequence[str], rows: Sequence[str], of: tuple[str, str], cells: Mapping[tuple[str, str], float],
    score: Score,
) -> str:  # fmt: skip
    """of: names of columns and rows. cells: (column, row) → value of the score; a missing cell has no finished run."""
    wide = (WIDTH - LEFT - 8) / len(columns)
    floor = TOP + CELL * len(rows)
    values = sorted((value for value in cells.values() if math.isfinite(value)), key=score.rank)
    best, worst = values[0], values[-1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {floor + BOTTOM}" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#1b1b1b">',
        f'<text x="{LEFT}" y="16" font-weight="600">{escape(title)}</text>',
    ]
    for i, column in enumerate(columns):
        for j, row in enumerate(rows):
            value = cells.get((column, row), math.nan)
            box = (LEFT + wide * i, TOP + CELL * j, wide)
            share = (value - worst) / (best - worst) if best != worst else 1.0
            parts += _cell(value, score.format, box, share, value == best)
    parts += [_text(LEFT + wide * (i + 0.5), floor + 16, name) for i, name in enumerate(columns)]
    parts += [_text(LEFT - 6, TOP + CELL * (j + 0.5) + 4, name, "end") for j, name in enumerate(rows)]
    parts.append(_text(LEFT + (WIDTH - 8 - LEFT) / 2, floor + 36, of[0]))
    middle = TOP + CELL * len(rows) / 2
    rotation = f'x="13" y="{middle}" transform="rotate(-90 13 {middle})" text-anchor="middle"'
    return "\n".join([*parts, f"<text {rotation}>{escape(of[1])}</text>", "</svg>"])


def _cell(value: float, form: str, box: tuple[float, float, float], share: float, best: bool) -> list[str]:
    x, y, wide = box
    if not math.isfinite(value):
        return [_text(x + wide / 2, y + CELL / 2 + 4, "–")]
    shade = "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(LIGHT, DARK, strict=True))
    frame = 'stroke="#D55E00" stroke-width="3"' if best else 'stroke="#fff"'
    inset = 1.5 if best else 0
    place = f'x="{x + inset:.1f}" y="{y + inset:.1f}" width="{wide - 2 * inset:.1f}" height="{CELL - 2 * inset}"'
    number = _text(x + wide / 2, y + CELL / 2 + 4, form.format(value), colour="#fff" if share > 0.5 else "#1b1b1b")
    return [f'<rect {place} fill="{shade}" {frame}/>', number]


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#1b1b1b") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
