"""An ensemble's run says how good its members are, each asked alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from mangakd.evaluation import predictions
from mangakd.evaluation.report import sections
from mangakd.evaluation.report.measure import measure
from mangakd.evaluation.table import rows
from mangakd.tasks.classification.judge import ClassificationJudge

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
ONE_EPOCH = ("teacher.fit.epochs=1", "trainer.max_epochs=1")


def check_metrics(run: Path) -> None:
    """metrics.json holds what the judge makes of the run's predictions; validation while training said the same."""
    metrics, judge = json.loads((run / "metrics.json").read_text()), ClassificationJudge()
    test, validation = (predictions.load(run, split) for split in ("test", "validation"))
    values = judge.values(test.head, test.answers["student"], test.truth, test.answers["teacher"])
    assert {name: metrics[f"test/{name}"] for name in values} == values
    whole = judge.values(test.head, test.answers["teacher"], test.truth)["accuracy"]
    assert metrics["test/retention"] == values["accuracy"] / whole
    accuracy = judge.values(validation.head, validation.answers["student"], validation.truth)["accuracy"]
    assert metrics["val/accuracy"] == round(accuracy, 6)


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_members_are_scored_one_by_one(
    small_run: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, combine: str
) -> None:
    typed = [*small_run, *ONE_EPOCH, "teacher.fit.mode=always"]
    alone = []
    for seed in (0, 1):
        run_here(compose(*typed, f"teacher.seed={seed}"), tmp_path / str(seed))
        check_metrics(tmp_path / str(seed))
        found = measure(tmp_path / str(seed), ClassificationJudge(), 10).scores
        alone.append((found["teacher", "accuracy"].value, found["teacher", "ece"].value))
    several = compose(*typed, "teacher=ensemble", "teacher.seeds=[0,1]", f"teacher.combine={combine}")
    run_here(several, tmp_path / "both")
    metrics = json.loads((tmp_path / "both" / "metrics.json").read_text())
    if combine == "logits":  # one answer is all there is
        assert "members/test/accuracy" not in metrics
        return
    accuracy, ece = (sum(both) / 2 for both in zip(*alone, strict=True))
    assert metrics["members/test/accuracy"] == pytest.approx(accuracy)
    assert metrics["members/test/ece"] == pytest.approx(ece, abs=1e-4) and alone[0][1] != pytest.approx(ece, abs=1e-4)
    assert [name for name, _ in rows(metrics, ClassificationJudge())] == ["teacher", "its members, mean", "student"]
    headline = str(sections.headline(measure(tmp_path / "both", ClassificationJudge(), 10), []).blocks[0])
    assert f"The mean of the ensemble's members is {accuracy:.1%}" in headline
