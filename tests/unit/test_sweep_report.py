"""Runs grouped into points, their intervals against independent implementations, and the heat map's cells."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_run import JUDGE, LABELS, RESAMPLES, ROWS
from scipy import stats

from mangakd.core.errors import UserError
from mangakd.core.run_folder import COMMAND, ERROR
from mangakd.core.spec import Head
from mangakd.evaluation import predictions, sweep
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report import seeds as seeds_report
from mangakd.evaluation.report.heatmap import heatmap
from mangakd.evaluation.report.sweep import write_sweep

TARGETS = np.arange(ROWS) % len(LABELS)


def run(folder: Path, settings: str, wrong: int) -> None:
    """A finished run whose student is wrong in the first `wrong` rows of validation."""
    folder.mkdir(parents=True)
    start = ("python train.py", "mangakd train", "python -m mangakd train")[wrong % 3]
    (folder / COMMAND).write_text(f"{start} task=intent {settings}\n")
    score = 1 - wrong / ROWS
    (folder / "metrics.json").write_text(
        json.dumps({"val/accuracy": score, "test/accuracy": 0.5, "test/agreement": 0.6, "run/seconds": 90.0})
    )
    said = np.where(np.arange(ROWS) < wrong, TARGETS + 1, TARGETS) % len(LABELS)
    logits = {"teacher": 9 * np.eye(len(LABELS))[TARGETS], "student": 9 * np.eye(len(LABELS))[said]}
    answers = {name: {"logits": each} for name, each in logits.items()}
    head, texts = Head("labels", len(LABELS), LABELS), [str(i) for i in range(ROWS)]
    made = Predictions(head, texts, {"labels": TARGETS}, answers, {"train_counts": np.full(len(LABELS), 30)})
    predictions.save(made, folder, "validation")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """T = 10 and 2, alpha = 0.5 and 0.7; two seeds of each, one point without its second."""
    wrongs = {("10", "0.5"): (12, 24), ("10", "0.7"): (6, 6), ("2", "0.5"): (36, 30), ("2", "0.7"): (3,)}
    for number, ((t, alpha), seeds) in enumerate(wrongs.items()):
        for seed, wrong in enumerate(seeds):
            settings = f"distill.temperature={t} distill.alpha={alpha} seed={seed}"
            run(tmp_path / "sweep" / str(2 * number + seed), settings, wrong)
    failed = tmp_path / "sweep" / "7"
    failed.mkdir()
    (failed / ERROR).write_text("the disk is full\n")
    return tmp_path / "sweep"


def test_seeds_are_one_point(folder: Path) -> None:
    found = sweep.result(folder, JUDGE)
    assert found.keys == ("distill.temperature", "distill.alpha") and found.score == "accuracy"
    assert [point.values for point in found.points] == [("2", "0.7"), ("10", "0.7"), ("10", "0.5"), ("2", "0.5")]
    assert [len(point.runs) for point in found.points] == [1, 2, 2, 2]
    assert found.winning_command() == "mangakd train task=intent distill.temperature=2 distill.alpha=0.7"
    assert [r.error for r in found.runs if not r.finished] == ["the disk is full"]


def test_the_interval_over_seeds(folder: Path) -> None:
    point = sweep.result(folder, JUDGE).points[2]
    scores = np.array([1 - 12 / ROWS, 1 - 24 / ROWS])
    low, high = stats.t.interval(0.95, 1, scores.mean(), stats.sem(scores))
    assert point.mean == pytest.approx(scores.mean())
    assert point.half == pytest.approx((high - low) / 2, rel=1e-4)
    assert np.isnan(sweep.result(folder, JUDGE).points[0].half), "one seed has no interval"


def test_quantiles_of_t() -> None:
    for freedom in (*range(1, 40), 200):
        assert sweep.quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


SEEDS = {  # seed: student, baseline and teacher on test
    "0": (0.90, 0.86, 0.92), "1": (0.88, 0.87, 0.92), "2": (0.92, 0.83, 0.92), "3": (0.90, 0.84, 0.92),
}  # fmt: skip


def repeated(folder: Path, baseline: bool = True, **seeds: object) -> Path:
    """One run under four seeds. seeds: more of its config; `follow` is the run's own."""
    for seed, (student, without, teacher) in SEEDS.items():
        run(folder / seed, f"seed={seed}", 3)
        metrics = {"test/accuracy": student, "teacher/test/accuracy": teacher, "test/retention": student / teacher}
        metrics |= {"baseline/test/accuracy": without} if baseline else {}
        kept = json.loads((folder / seed / "metrics.json").read_text())
        (folder / seed / "metrics.json").write_text(json.dumps(kept | metrics))
        own = {key: int(seed) if value == "follow" else value for key, value in seeds.items()}
        config = {
            "seed": int(seed),
            "data": {"split_seed": own.get("split_seed", 0)},
            "teacher": {"fit": {"seed": own.get("fit_seed", 0)}, "seeds": [0]},
        }
        (folder / seed / "config.yaml").write_text(yaml.safe_dump(config))
        of = dataclasses.replace(
            predictions.load(folder / seed, "validation"),
            texts=[f"{own.get('split_seed', 0)} {i}" for i in range(ROWS)],
        )
        predictions.save(of, folder / seed, "test")
    return folder


def test_a_run_over_seeds(tmp_path: Path) -> None:
    printed = write_sweep(repeated(tmp_path / "seeds"), JUDGE, RESAMPLES)
    gains = np.array([4.0, 1.0, 9.0, 6.0])
    low, high = stats.t.interval(0.95, 3, gains.mean(), stats.sem(gains))
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in printed.splitlines() if line[:1] == "|"}
    assert rows["gain: student − student without KD, points"] == [f"+5.0 [{low:+.1f}, {high:+.1f}]", "+1.0", "+9.0 |"]
    student = np.array([0.9, 0.88, 0.92, 0.9])
    low, high = stats.t.interval(0.95, 3, student.mean(), stats.sem(student))
    assert rows["accuracy, student"] == [f"90.0% [{low:.1%}, {high:.1%}]", "88.0%", "92.0% |"]
    assert rows["accuracy, student without KD"][1:] == ["83.0%", "87.0% |"]
    assert rows["accuracy, teacher"] == ["92.0% (all the same)", "92.0%", "92.0% |"]
    assert rows["2"][:4] == ["92.0%", "83.0%", "+9.0", "92.0%"], "each seed's own numbers"
    assert "above 0 with 4 of 4 seeds" in printed and "The teacher makes no difference" in printed, "-0.4 to +10.4"
    assert "## The best point" not in printed and "minus best" not in printed
    assert (tmp_path / "seeds" / "report.html").read_text().count("<table") >= 2


def test_the_gain_needs_a_baseline(tmp_path: Path) -> None:
    printed = write_sweep(repeated(tmp_path, baseline=False), JUDGE, RESAMPLES)
    assert "baseline=true" in printed and "gain" not in printed and "nan" not in printed


def test_what_differs_between_the_runs_is_told(tmp_path: Path) -> None:
    def told(name: str, **seeds: object) -> str:
        return seeds_report.what_differs(sweep.result(repeated(tmp_path / name, **seeds), JUDGE).points[0])

    alone = told("alone")
    assert alone.startswith("Differs from run to run: first weights") and "(seed)." in alone
    assert "The same in all: " in alone and "the teacher's fine-tuning (teacher.fit.seed, teacher.seeds)" in alone
    assert alone.endswith("add 'data.split_seed=${seed}' 'teacher.fit.seed=${seed}'.")
    whole = told("whole", split_seed="follow", fit_seed="follow")
    assert "The same in all" not in whole and "the teacher's fine-tuning (teacher.fit.seed)" in whole
    assert "same teacher nevertheless" in whole, "its scores are the same: it was no fine-tuning of ours"
    assert "tested on different rows" in whole and "different rows" not in alone


def test_the_best_point_of_a_sweep_has_its_seeds(tmp_path: Path) -> None:
    for number, (t, seed, wrong) in enumerate([("2", 0, 6), ("2", 1, 9), ("4", 0, 30), ("4", 1, 33)]):
        run(tmp_path / str(number), f"distill.temperature={t} seed={seed}", wrong)
    text = write_sweep(tmp_path, JUDGE, RESAMPLES) and (tmp_path / "report.md").read_text()
    assert "The best point" in text and "mean of 2 seeds" in text


def test_differences_from_the_best_are_paired(folder: Path) -> None:
    swept = sweep.result(folder, JUDGE)
    points, gaps = swept.points, sweep.behind(swept, 4000, 0)
    assert gaps is not None and gaps[0].value == 0 and set(gaps[0].draws) == {0}
    # Wrong in rows 0…5 against 0…2: rows 3, 4 and 5 decide, and each is worth a whole row in both seeds.
    assert gaps[1].value == pytest.approx(-100 * 3 / ROWS)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, ROWS, (4000, ROWS))
    low, high = np.percentile(-100 * ((drawn >= 3) & (drawn < 6)).mean(-1), [2.5, 97.5])
    assert gaps[1].interval == pytest.approx((low, high), abs=100 / ROWS)
    (points[0].runs[0].folder / "predictions" / "validation.npz").unlink()
    assert sweep.behind(sweep.result(folder, JUDGE), 10, 0) is None


def test_the_report(folder: Path) -> None:
    printed = write_sweep(folder, JUDGE, RESAMPLES)
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert "8 runs, 4 points" in printed and "the disk is full" in text
    assert re.search(r"\| 2 \| 0\.7 \| 1 \| 97\.5% \| – \| 1\.5 \|", printed)
    assert page.count("<rect") == 4 and page.count('stroke="#D55E00"') == 1
    rows = re.findall(r"^\| (?:0\.\d) \| .*", text, re.MULTILINE)
    assert rows == ["| 0.5 | 72.5% | 85.0% |", "| 0.7 | 97.5% | 95.0% |"], "columns by size: 2, then 10"


def test_one_key_is_a_curve_and_none_no_plot(tmp_path: Path) -> None:
    for n, t in enumerate(("4", "1", "2")):
        run(tmp_path / str(n), f"distill.temperature={t}", 3 * n)
    write_sweep(tmp_path, JUDGE, RESAMPLES)
    assert "<polyline" in (tmp_path / "report.html").read_text()


def test_a_sweep_without_a_result_is_told(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / ERROR).write_text("no")
    assert sweep.is_sweep(tmp_path)
    with pytest.raises(UserError, match="none of its 1 runs has finished"):
        write_sweep(tmp_path, JUDGE)


def test_heatmap_cells() -> None:
    svg = heatmap("a & b", ["1", "2"], ["x"], ("T", "alpha"), {("1", "x"): 0.25}, JUDGE.scores["accuracy"])
    assert "25.0%" in svg and "–" in svg and "a &amp; b" in svg and ">T<" in svg and ">alpha<" in svg
