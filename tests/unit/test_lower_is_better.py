"""Whatever chooses by a score chooses the lowest where lower is better: one judge that says so, and all who read it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from lower_judge import LowerJudge
from made_run import RESAMPLES, ROWS, made, read

from mangakd.cli import judges
from mangakd.cli.app import CONF, register_resolvers
from mangakd.core.errors import UserError
from mangakd.core.run_folder import COMMAND
from mangakd.core.spec import Head
from mangakd.evaluation import gate, predictions, sweep, table
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report import compare, curves
from mangakd.evaluation.report.heatmap import heatmap
from mangakd.evaluation.report.measure import measure
from mangakd.evaluation.report.sweep import write_sweep
from mangakd.evaluation.report.write import write_report
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.runs import scores
from mangakd.tasks.classification.task import Classification
from mangakd.training.fit import Fit, FitResult, fit
from mangakd.training.validation import Validation

JUDGE = LowerJudge()
NLL = JUDGE.scores["nll"]
LOWEST = 'stroke="#D55E00"'


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FitResult]:
    """fitted(scores, **options): a fit of as many epochs, whose validation says these."""

    def run(scores: list[float], **options: object) -> FitResult:
        left = iter(scores)
        monkeypatch.setattr(Validation, "scores", lambda _: {"nll": next(left)})
        student = tiny.encoder(2)
        losses = tiny.bound(student, None, hard_label=HardLabelLoss())
        plan: Fit = replace(tiny.plan(tmp_path, epochs=len(scores)), task=Classification(judge=JUDGE, monitor="nll"))
        return fit(student, losses, None, replace(plan, **options))

    return run


def test_the_epoch_with_the_lowest_score_is_kept_and_the_later_of_equal_ones(
    fitted: Callable[..., FitResult], tmp_path: Path
) -> None:
    assert fitted([0.9, 0.2, 0.2, 0.5]).score == 0.2
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)["epoch"] == 2


def test_patience_waits_for_a_lower_score(fitted: Callable[..., FitResult]) -> None:
    assert fitted([0.9, 0.5, 0.3], patience=1).steps == 3 * 13, "each epoch is better"
    assert fitted([0.3, 0.5, 0.9, 0.1], patience=2).steps == 3 * 13


def test_gain_and_retention_have_the_direction_in_them() -> None:
    assert NLL.gain(0.2, 0.5) == pytest.approx(0.3) and NLL.retention(student=0.5, teacher=0.4) == pytest.approx(0.8)
    assert sorted([0.5, float("nan"), 0.2, 0.9], key=NLL.rank)[:3] == [0.2, 0.5, 0.9]


def swept(folder: Path) -> Path:
    """T = 1 and 2, alpha = 0.3 and 0.7: the larger `sure`, the lower the NLL. T = 2, alpha = 0.3 is best."""
    for number, (settings, sure) in enumerate({"1 0.3": 1.0, "1 0.7": 2.0, "2 0.3": 4.0, "2 0.7": 3.0}.items()):
        run = folder / str(number)
        run.mkdir(parents=True)
        temperature, alpha = settings.split()
        (run / COMMAND).write_text(f"mangakd train distill.temperature={temperature} distill.alpha={alpha}\n")
        targets = np.arange(ROWS) % 3
        logits = sure * np.eye(3)[targets]
        head, truth, answers = Head("labels", 3, ("a", "b", "c")), {"labels": targets}, {"logits": logits}
        saved = Predictions(head, list(map(str, range(ROWS))), truth, {"student": answers})
        predictions.save(saved, run, "validation")
        nll = JUDGE.values(head, answers, truth)["nll"]
        scores = {"val/nll": nll, "test/nll": nll, "baseline/test/nll": nll + 0.25, "run/seconds": 60.0}
        (run / "metrics.json").write_text(json.dumps(scores))
    return folder


def test_a_sweep_puts_the_lowest_first(tmp_path: Path) -> None:
    result = sweep.result(swept(tmp_path), JUDGE)
    assert [point.values for point in result.points] == [("2", "0.3"), ("2", "0.7"), ("1", "0.7"), ("1", "0.3")]
    gaps = sweep.behind(result, RESAMPLES, 0)
    assert gaps is not None and gaps[0].value == 0 and all(gap.value > 0 for gap in gaps[1:])
    assert gaps[3].value == pytest.approx(result.points[3].mean - result.points[0].mean), "in nats, not in points"
    printed = write_sweep(tmp_path, JUDGE, RESAMPLES)
    assert "distill.temperature=2, distill.alpha=0.3. NLL 0.036" in printed and "%" not in printed.split("95 %")[0]
    assert re.search(r"\| 2 \| 0\.3 \| 1 \| 0\.036 \| – \| 1\.0 \|", printed)
    best = (tmp_path / "report.html").read_text().split(LOWEST)
    assert len(best) == 2 and ">0.036<" in best[1].split("</text>")[0] + "<"


def test_the_heat_map_frames_and_darkens_the_lowest() -> None:
    svg = heatmap("t", ["1", "2"], ["x"], ("T", "alpha"), {("1", "x"): 0.25, ("2", "x"): 0.75}, NLL)
    framed = next(part for part in svg.splitlines() if LOWEST in part)
    assert 'fill="#004e8c"' in framed and svg.index(LOWEST) < svg.index(">0.250<") < svg.index(">0.750<")


def test_seeds_count_a_lower_score_as_a_gain(tmp_path: Path) -> None:
    for number, seed in enumerate((0, 1)):
        run = tmp_path / str(number)
        run.mkdir()
        (run / COMMAND).write_text(f"mangakd train seed={seed}\n")
        scores = {
            "val/nll": 0.4,
            "test/nll": 0.4 + seed / 100,
            "baseline/test/nll": 0.6 + seed / 50,
            "run/seconds": 1.0,
        }
        (run / "metrics.json").write_text(json.dumps(scores))
    printed = write_sweep(tmp_path, JUDGE, RESAMPLES)
    assert "| gain: student without KD − student | +0.205" in printed and "above 0 with 2 of 2 seeds" in printed


def test_the_report_and_the_gate(tmp_path: Path) -> None:
    run = made(tmp_path / "run", logged="epoch,step,train/loss,val/nll\n0,9,2.5,\n0,9,,0.7\n")
    measured = measure(run, JUDGE, RESAMPLES)
    student, baseline, teacher = (measured.scores[name, "nll"].value for name in ("student", "baseline", "teacher"))
    assert measured.gate["lift"].value == pytest.approx(baseline - student)  # type: ignore[union-attr]
    assert measured.retention.value == pytest.approx(teacher / student)
    lines = {"low": {"measure": "nll", "tested": "bound", "at_most": 9}, "lift": {"measure": "lift", "at_least": -9}}
    assert [line.passed for line in write_report(run, JUDGE, lines, RESAMPLES)] == [True, True]
    text = read(run)[2]
    assert f"The student's NLL is {student:.3f}" in text and "validation NLL" in text and "Calibration" not in text
    assert f"| negative log-likelihood, nats | {teacher:.3f} [" in text
    with pytest.raises(UserError, match="lower is better"):
        gate.lines({"low": {"measure": "nll", "at_least": 1}}, JUDGE)
    both = compare.sections(compare.read([run, made(tmp_path / "other")]), JUDGE, RESAMPLES, 0)
    assert "negative log-likelihood, nats" in str(both)


def test_curves_and_the_table_show_the_judge_s_scores(tmp_path: Path) -> None:
    drawn = curves.figure({"": curves.Curves({"val/nll": ([1, 2], [0.7, 0.5])})}, "val/nll", JUDGE)
    assert drawn.caption == "validation NLL" and ">nats<" in drawn.svg
    metrics = {"test/nll": 0.5, "teacher/test/nll": 0.25, "test/retention": 0.5}
    assert [cells[0] for _, cells in table.rows(metrics, JUDGE)] == ["0.250", "0.500"]


@pytest.mark.parametrize(("nll", "refused"), [(1.0, True), (0.5, False)])
def test_a_teacher_that_is_no_better_than_chance_is_refused(nll: float, refused: bool) -> None:
    """ln 3 = 1.1 nats is chance; 0.99 is a tenth of the way to 0."""
    head, truth = Head("labels", 3), {"labels": np.arange(9) % 3}
    if not refused:
        scores.check_above_chance(JUDGE, head, {"nll": nll}, truth)
        return
    with pytest.raises(UserError, match=r"near chance: validation nll 1\.000"):
        scores.check_above_chance(JUDGE, head, {"nll": nll}, truth)


LOWER = ("task.judge._target_=lower_judge.LowerJudge", "task.monitor=nll")


@pytest.mark.parametrize(
    ("typed", "direction"), [((), "maximize"), (("task.monitor=ece",), "minimize"), (LOWER, "minimize")]
)
def test_optuna_is_told_the_direction(typed: tuple[str, ...], direction: str) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose("train", ["sweep=search", *typed], return_hydra_config=True)
    assert config.hydra.sweeper.direction == direction


def test_a_run_on_disk_is_read_with_its_own_judge(tmp_path: Path) -> None:
    run, before = made(tmp_path / "run"), made(tmp_path / "before")
    (run / "config.yaml").write_text("task: {judge: {_target_: lower_judge.LowerJudge}}\n")
    assert isinstance(judges.of_run(run), LowerJudge) and isinstance(judges.of_run(tmp_path / "run"), LowerJudge)
    assert judges.of_run(before).main == "accuracy"
    with pytest.raises(UserError, match=r"was scored by LowerJudge.*by ClassificationJudge"):
        judges.of_runs([run, before])


def test_a_student_keeps_no_share_of_an_error(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    write_report(run, JUDGE, {}, RESAMPLES)
    report = (run / "report.md").read_text()
    assert "The teacher's is" in report and "It keeps" not in report
