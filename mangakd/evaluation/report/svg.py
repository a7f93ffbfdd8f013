"""Line and dot charts as SVG text. A report then needs no plotting package, and its figures stay sharp and searchable.

A chart is 360 units wide with a 12-unit font, about its own size on a phone. Dark on light. Series differ in dashes and in
colour (Okabe & Ito's palette, which colour-blind readers can distinguish). tests/integration/test_report_in_browser.py checks
in a browser that no text leaves the drawing or overlaps another text.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0072B2", "#D55E00", "#007A5A", "#A8457F", "#222222", "#7A6000")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")
WIDTH, PLOT_HEIGHT, LEFT, RIGHT, TOP, BOTTOM, LEGEND = 360, 220, 72, 24, 30, 42, 17
TITLE, NAME = 32, 33  # letters in a line of the title and of the legend that fit in the widest common font
DOTS = 30  # curves of at most 30 points show each point


@dataclass(frozen=True)
class Series:
    """One curve. areas: of its dots, in [0, 1]. None draws small dots, and only on curves of few points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    areas: Sequence[float] | None = None


@dataclass(frozen=True)
class Axis:
    """percent: values are shares, shown as percentages. low, high: fixed ends; None takes the data's ends."""

    label: str
    percent: bool = False
    low: float | None = None
    high: float | None = None


def chart(
    title: str, series: Sequence[Series], x: Axis, y: Axis, marks: Sequence[float] = (), diagonal: bool = False
) -> str:
    """marks: the x at which a new stage begins. diagonal: draw the line x = y."""
    across = _Scale(x, [v for s in series for v in s.x], LEFT, WIDTH - RIGHT)
    up = _Scale(y, [v for s in series for v in s.y], TOP + PLOT_HEIGHT, TOP)
    names = [_lines(s.name) for s in series] if len(series) > 1 else []
    height = TOP + PLOT_HEIGHT + BOTTOM + LEGEND * sum(map(len, names))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#1b1b1b">',
        f'<text x="{LEFT}" y="16" font-weight="600">{escape(_cut(title))}</text>',
        *_axes(across, up),
    ]
    for at in marks:
        line = f'<line x1="{across(at):.1f}" x2="{across(at):.1f}" y1="{TOP}" y2="{TOP + PLOT_HEIGHT}" stroke="#999"'
        parts.append(f'{line} stroke-dasharray="3 3"/>')
    if diagonal:
        ends = f'x1="{across(0):.1f}" y1="{up(0):.1f}" x2="{across(1):.1f}" y2="{up(1):.1f}"'
        parts.append(f'<line {ends} stroke="#777" stroke-dasharray="4 4"/>')
    for i, one in enumerate(series):
        parts += _curve(one, i, across, up)
    at = TOP + PLOT_HEIGHT + BOTTOM + 8
    for i, lines in enumerate(names):
        parts += _legend(lines, i, at)
        at += LEGEND * len(lines)
    return "\n".join([*parts, "</svg>"])


def _lines(name: str) -> list[str]:
    """Split a name into lines: after a character that ends a part of a path or of an override, else anywhere."""
    return re.findall(rf".{{1,{NAME}}}(?:(?<=[ _,=/-])|$)|.{{1,{NAME}}}", name)


def _cut(title: str) -> str:
    return title if len(title) <= TITLE else title[: TITLE - 1] + "…"


class _Scale:
    """Values → units of the drawing. ticks: their values."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        finite = [v for v in values if math.isfinite(v)] or [0.0]
        low = min(finite) if axis.low is None else axis.low
        high = max(finite) if axis.high is None else axis.high
        if high <= low:  # one value: a margin on both sides, but no shares above 100 %
            margin = 0.05 if axis.percent else (abs(low) or 1) / 2
            low, high = low - margin, min(high + margin, 1.0) if axis.percent else high + margin
        step = _step(max(high - low, 5e-4) if axis.percent else high - low)  # two decimals of a percentage at most
        self.low = low if axis.low is not None else math.floor(low / step) * step
        self.high = high if axis.high is not None else math.ceil(high / step) * step
        self.axis, self.start, self.end = axis, start, end
        first = math.ceil(self.low / step - 1e-9)
        self.ticks = [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        self._decimals = max(0, -math.floor(math.log10(step) + 1e-9) - (2 if axis.percent else 0))
        self._largest = max(map(abs, self.ticks), default=0.0)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def label(self, tick: float) -> str:
        if self.axis.percent:
            return f"{tick:.{self._decimals}%}"
        if 1e5 <= self._largest < 1e9:
            unit, letter = (1e6, "M") if self._largest >= 1e6 else (1e3, "k")
            return f"{tick / unit:g}{letter}" if tick else "0"
        if self._largest >= 1e9 or self._decimals > 4:
            return f"{tick:.3g}".replace("e+0", "e").replace("e-0", "e-")
        return f"{tick:,.{self._decimals}f}"


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that an axis has three to six ticks."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * k for k in (1, 2, 5, 10) if span / (power * k) <= 5)


def _axes(x: _Scale, y: _Scale) -> list[str]:
    floor, right = TOP + PLOT_HEIGHT, WIDTH - RIGHT
    parts = [f'<line x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}" stroke="#1b1b1b"/>']
    for tick in y.ticks:
        at = y(tick)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e2e2e2"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y.label(tick)}</text>')
    for tick in x.ticks:
        at = x(tick)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}" stroke="#1b1b1b"/>')
        parts.append(f'<text x="{at:.1f}" y="{floor + 17}" text-anchor="middle">{x.label(tick)}</text>')
    middle = TOP + PLOT_HEIGHT / 2
    rotation = f'x="12" y="{middle}" transform="rotate(-90 12 {middle})" text-anchor="middle"'
    parts.append(f"<text {rotation}>{escape(y.axis.label)}</text>")
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{floor + 34}" text-anchor="middle">{escape(x.axis.label)}</text>')
    return parts


def _curve(series: Series, index: int, x: _Scale, y: _Scale) -> list[str]:
    places = [(x(a), y(b)) for a, b in zip(series.x, series.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    colour = COLOURS[index % len(COLOURS)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" {_dash(index)}/>']
    if series.areas is not None or len(places) <= DOTS:
        sizes = [2 + 6 * math.sqrt(a) for a in series.areas] if series.areas is not None else [2.5] * len(places)
        dot = f'fill="{colour}" fill-opacity="0.75"'
        parts += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}" {dot}/>' for (a, b), r in zip(places, sizes, strict=True)
        ]
    return parts


def _legend(name: Sequence[str], index: int, y: float) -> list[str]:
    """name: the lines of the series' name."""
    colour = COLOURS[index % len(COLOURS)]
    line = f'<line x1="{LEFT}" x2="{LEFT + 26}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2.5" {_dash(index)}/>'
    start = f'<text x="{LEFT + 32}"'
    return [line, *(f'{start} y="{y + 4 + LEGEND * i}">{escape(part)}</text>' for i, part in enumerate(name))]


def _dash(index: int) -> str:
    dashes = DASHES[index % len(DASHES)]
    return f'stroke-dasharray="{dashes}"' if dashes else ""
