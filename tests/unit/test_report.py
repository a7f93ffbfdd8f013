"""Reports of made-up runs: whole, self-contained, and true to the predictions; comparisons of runs; what is no run."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from made_run import GATE, JUDGE, LABELS, ONE_STAGE, RESAMPLES, ROWS, TWO_STAGES, made, predicted, read
from scipy.special import log_softmax, softmax

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation import predictions
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report import compare, curves
from mangakd.evaluation.report.blocks import Figure
from mangakd.evaluation.report.measure import measure
from mangakd.evaluation.report.svg import COLOURS, Axis, Series, chart
from mangakd.evaluation.report.write import write_report
from mangakd.evaluation.statistics import Answers
from mangakd.tasks.classification import mistakes

SECTIONS = (
    "May it ship?", "Scores", "The student against the others", "Calibration", "Confused classes", "Disagreements",
    "Learning curves", "Size and speed", "Configuration",
)  # fmt: skip


@pytest.mark.parametrize("baseline", [True, False], ids=["baseline", "no baseline"])
@pytest.mark.parametrize("logged", [ONE_STAGE, TWO_STAGES, None], ids=["one stage", "two stages", "no curves"])
@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
def test_a_report_is_whole_and_needs_nothing_else(tmp_path: Path, baseline: bool, logged: str, several: bool) -> None:
    run = made(tmp_path / "run", logged, baseline=baseline, several=several)
    verdicts = write_report(run, JUDGE, GATE, RESAMPLES)
    page, text, markdown = read(run)
    assert tuple(page.headings) == SECTIONS
    assert [line[3:] for line in markdown.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    assert not {"src", "href", "onload"} & {name for name, _ in page.attributes}
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(svg)
    curves_drawn = {ONE_STAGE: 6, TWO_STAGES: 4, None: 0}[logged]
    assert text.count("<svg") == curves_drawn + (3 if baseline else 2), (
        "a curve for each column, a diagram for each model"
    )
    assert ("student without KD" in markdown) == baseline
    assert (verdicts[1].passed is None) == (not baseline)
    assert "nan" not in markdown.lower().replace("finance", "")
    assert {p.name for p in run.iterdir()} >= {"report.html", "report.md"} and not list(run.glob("*partial*"))


def test_numbers_are_those_of_the_predictions(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    write_report(run, JUDGE, {}, RESAMPLES)
    _, _, markdown = read(run)
    test = predictions.load(run, "test")
    teacher, student = (test.answers[name]["logits"].astype(np.float64) for name in ("teacher", "student"))
    targets = test.truth["labels"]
    right = (student.argmax(-1) == targets).mean()
    kl = (softmax(teacher, -1) * (log_softmax(teacher, -1) - log_softmax(student, -1))).sum(-1).mean()
    rare = (student.argmax(-1) == 3)[targets == 3].mean()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    rows = {line.split(" | ")[0].strip("| "): line for line in reversed(lines)}  # the first table that has it
    assert rows["accuracy"].split(" | ")[3].startswith(f"{right:.1%} [")
    assert rows["rare-class accuracy"].split(" | ")[3].startswith(f"{rare:.1%} [")
    assert rows["KL(teacher ‖ student), nats"].split(" | ")[3].startswith(f"{kl:.3f} [")
    baseline = (test.answers["baseline"]["logits"].argmax(-1) == targets).mean()
    assert rows["accuracy, points"].split(" | ")[1].startswith(f"{100 * (right - baseline):+.1f} [")
    assert rows["parameters"] == "| parameters | 4,000 | 1,000 | 4.0 × |"
    differ = int((teacher.argmax(-1) != student.argmax(-1)).sum())
    assert f"Student and teacher differ on {differ} of {ROWS} test rows" in markdown
    assert "clipped in 50% of the 2 logged steps" in markdown


def test_texts_and_labels_are_shown_not_run(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    write_report(run, JUDGE, {}, RESAMPLES)
    page, text, markdown = read(run)  # Page refuses a script
    assert "<b>order" not in text and "where is | my <b>order</b>" in "".join(page.words)
    cells = {line.count(" | ") for line in markdown.splitlines() if line.startswith("| where is")}
    assert cells == {3}, "neither | nor a line break ends a cell"


def test_confused_pairs() -> None:
    said, truth = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 2, 0])
    assert mistakes.confusion(Answers(np.eye(3)[said], truth)).tolist() == [[0, 2, 1], [0, 0, 1], [0, 0, 0]]


def test_curves_know_their_stages_and_shares(tmp_path: Path) -> None:
    found = curves.read(made(tmp_path / "run", TWO_STAGES))
    assert found.stages == [25] and found.terms(curves.LOSS) == ["hidden", "output"]
    assert found.columns["val/accuracy"] == ([29], [0.4])
    short = TWO_STAGES.replace("\n1,", "\n0,")  # an epoch each: only the terms tell the stages apart
    assert curves.read(made(tmp_path / "short", short)).stages == [25]
    columns = f"epoch,step,train/loss,{curves.NORM}output,{curves.NORM}hidden\n"
    norms = f"{columns}0,9,1.0,1.0,3.0\n0,19,1.0,0.0,0.0\n"
    figure = curves.blocks(curves.read(made(tmp_path / "other", norms)), JUDGE)[-1]
    assert isinstance(figure, Figure) and "share of each term" in figure.caption
    assert [row[:2] for row in figure.numbers.rows] == [["output", "25.0%"], ["hidden", "75.0%"]]


def test_a_chart_keeps_inside_itself() -> None:
    svg = chart("t", [Series("a", [0, 1e5], [-3.0, 2e-3]), Series("b", [5], [float("nan")])], Axis("x"), Axis("y"))
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for element in root.iter():
        for name, most in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("y1", height)):
            assert 0 <= float(element.attrib.get(name, 0)) <= most
    assert chart("flat", [Series("a", [3], [0.0])], Axis("x"), Axis("y")), "one point, no span"


def test_a_run_has_one_name_and_one_colour_in_all_figures(tmp_path: Path) -> None:
    """Run 0 of two sweeps, the second with two stages: only it has a hidden term."""
    runs = compare.read([made(tmp_path / "a" / "0"), made(tmp_path / "b" / "0", TWO_STAGES)])
    assert [run.name for run in runs] == ["a/0", "b/0"]
    by_name = {run.name: run.curves for run in runs}
    hidden = curves.figure(by_name, "train/loss/hidden", JUDGE).svg
    assert f'fill="{COLOURS[1]}"' in hidden and f'fill="{COLOURS[0]}"' not in hidden, "dots of the second run alone"
    assert ">a/0<" in hidden and ">b/0<" in hidden


@pytest.mark.parametrize(
    ("y", "percent", "expected"),
    [
        ([0, 3e-7], False, ["0", "1e-7", "2e-7", "3e-7"]),
        ([0, 1500], False, ["0", "500", "1,000", "1,500"]),
        ([0, 2.5e7], False, ["0", "5M", "10M", "15M", "20M", "25M"]),
        ([0.98], True, ["94%", "96%", "98%", "100%"]),  # one value: no axis above 100 %
    ],
)
def test_ticks_are_short(y: list[float], percent: bool, expected: list[str]) -> None:
    svg = chart("t", [Series("a", range(len(y)), y)], Axis("x"), Axis("y", percent=percent))
    ticks = re.findall(r'text-anchor="end">([^<]*)<', svg)
    assert ticks[-len(expected) :] == expected


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    before = predicted("test")
    predictions.save(before, tmp_path, "test")
    after = predictions.load(tmp_path, "test")
    assert after.same_rows(before) and after.models == ["teacher", "student", "baseline"] and after.head.names == LABELS
    assert not after.same_rows(predicted("test", seed=1))
    np.testing.assert_array_equal(
        after.answers["student"]["logits"], before.answers["student"]["logits"].astype(np.float32)
    )
    assert mistakes.rare_mask(after).tolist() == [False, False, False, True]


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        measure(tmp_path / "nowhere", JUDGE)
    made(tmp_path / "sweep" / "0")
    with pytest.raises(UserError, match="it holds the runs 0; give one"):
        measure(tmp_path / "sweep", JUDGE)
    run = made(tmp_path / "run")
    file = predictions.file_of(run, "test")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"test\.npz cannot be read"):
        measure(run, JUDGE)
    file.unlink()
    with pytest.raises(UserError, match="resume=auto"):
        measure(run, JUDGE)
    with pytest.raises(ValueError, match="logits of student has 2 rows, not 1"):
        Predictions(
            Head("labels", 4, LABELS), ["a"], {"labels": np.array([0])}, {"student": {"logits": np.zeros((2, 4))}}
        )


def test_comparing_runs(tmp_path: Path) -> None:
    one, same, other = made(tmp_path / "one"), made(tmp_path / "same"), made(tmp_path / "other", TWO_STAGES, seed=1)
    scores, drawn = compare.sections(compare.read([one, same, other]), JUDGE, RESAMPLES, 0)
    minus = scores.blocks[3]
    assert all(row[1].text in ("+0.0", "+0.000") and row[1].interval in ("[+0.0, +0.0]", "[+0.000, +0.000]")
               for row in minus.rows)  # fmt: skip
    assert scores.blocks[-1].headers == ["", "other"], "it was tested on other rows"
    apart = {row[0]: row[1:] for row in drawn.blocks[1].rows}
    assert apart["train/loss"] == ["0", "0.5"] and apart["train/loss/hidden"] == ["–", "–"]
    with pytest.raises(UserError, match="two or more"):
        compare.read([one])
