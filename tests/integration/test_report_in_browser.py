"""Reports as a browser shows them, on a desk and on a phone: nothing sticks out, no text lies on another, nothing is fetched.

Needs a Chromium or Chrome on the PATH (Debian: apt-get install chromium); skipped where there is none.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab, chromium, installed
from made_run import GATE, JUDGE, ONE_STAGE, RESAMPLES, TWO_STAGES, made

from mangakd.evaluation.report import compare, html
from mangakd.evaluation.report.blocks import Figure, Section, Table
from mangakd.evaluation.report.svg import Axis, Series, chart
from mangakd.evaluation.report.write import write, write_report

pytestmark = pytest.mark.skipif(installed() is None, reason="no Chromium or Chrome on the PATH")
DESK, PHONE = 1280, 420
LONG = "2026-11-22_12-00-00_student=tinybert_4l_312d,distill.temperature=4"

# Of each figure: texts that lie outside of it, and pairs of texts that overlap by more than a hair's breadth.
MESSY = """
[...document.querySelectorAll("svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  const outside = texts.filter(([_, r]) =>
    r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 || r.bottom > frame.bottom + 1);
  const over = texts.flatMap(([a, r], i) => texts.slice(i + 1).filter(([_, s]) =>
    r.left < s.right - 1 && s.left < r.right - 1 && r.top < s.bottom - 3 && s.top < r.bottom - 3).map(([b]) => `${a} × ${b}`));
  return [...outside.map(([a]) => `outside: ${a}`), ...over];
})
"""
SIZES = "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = installed()
    assert program is not None
    with chromium(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def clean(tab: Tab, page: Path, width: int, **options: bool) -> None:
    tab.open(page, width, **options)
    assert tab.ask("document.querySelectorAll('h2').length") > 0, "the page is there"
    tab.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
    wide, held = tab.ask(SIZES)
    assert wide <= held, f"{page.name} is {wide} wide in a window of {held}"
    assert tab.ask(MESSY) == []
    assert tab.complaints == []
    assert tab.requests == [page.as_uri()]


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("logged", [ONE_STAGE, TWO_STAGES], ids=["one stage", "two stages"])
def test_a_report(tab: Tab, tmp_path: Path, logged: str, width: int) -> None:
    run = made(tmp_path / LONG, logged)
    write_report(run, JUDGE, GATE, RESAMPLES)
    clean(tab, run / "report.html", width)


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_comparison_of_runs_with_long_names(tab: Tab, tmp_path: Path, width: int) -> None:
    """Of equal last parts, too: seeds of two sweeps."""
    runs = [made(tmp_path / f"{letter}{LONG}" / "0") for letter in "abc"] + [
        made(tmp_path / f"{LONG}{LONG}", TWO_STAGES)
    ]
    write(tmp_path / "comparison", "4 runs", compare.sections(compare.read(runs), JUDGE, RESAMPLES, 0))
    clean(tab, tmp_path / "comparison.html", width)
    drawn = tab.ask("document.querySelector('svg').textContent")
    assert all(f"{letter}2026-11-22" in drawn for letter in "abc"), "the legend tells runs apart"


def test_figures_of_any_numbers(tab: Tab, tmp_path: Path) -> None:
    """From losses of 1e-7 to norms of 1e7, over 10 steps or a million; the longest names."""
    spans = [(0.0, y) for y in (3e-7, 2.3e-5, 0.004, 0.77, 9.0, 1300.0, 99_000.0, 2.5e7)] + [
        (-4e-5, 1e-5),
        (-1500.0, -2.0),
    ]
    charts = [
        chart(LONG, [Series(LONG, [0, steps], span), Series("b", [steps], span[1:])], Axis("step"), Axis("loss"))
        for span in spans
        for steps in (9, 950, 11_700, 1_200_000)
    ]
    shares = [[0.0, 1.0], [0.9787], [0.95128, 0.95131], [0.0]]
    charts += [
        chart("shares", [Series("", range(len(y)), y)], Axis("optimizer step"), Axis("share of rows", percent=True))
        for y in shares
    ]
    page = tmp_path / "charts.html"
    page.write_text(html.page("charts", [Section("all", [Figure(svg, "", Table(["", ""], [])) for svg in charts])]))
    clean(tab, page, DESK)


def test_light_in_the_dark_and_whole_on_paper(tab: Tab, tmp_path: Path) -> None:
    """Figures are dark on light, so the page stays light; on paper nothing scrolls, so nothing may need to."""
    run = made(tmp_path / "run")
    write_report(run, JUDGE, GATE, RESAMPLES)
    tab.open(run / "report.html", DESK, dark=True)
    assert tab.ask(BACKGROUND) == "rgb(255, 255, 255)"
    tab.open(run / "report.html", 700, media="print")
    wide = "e.checkVisibility({contentVisibilityAuto: true}) && e.scrollWidth > e.clientWidth"
    cut = "getComputedStyle(e).overflowX != 'visible'"
    assert tab.ask(f"[...document.querySelectorAll('.wide')].filter(e => {wide} || {cut}).length") == 0
