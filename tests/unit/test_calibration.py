"""Temperature refit against LBFGS, reliability bins against torchmetrics' ECE."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from mangakd.core.temperature_fit import COLDEST, fit_temperature
from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.evaluation.calibration import Bins
from mangakd.evaluation.statistics import Answers

ROWS, CLASSES = 4000, 6


def calibrated(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities come true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(ROWS, CLASSES)) * 2
    return logits, (softmax(logits, -1).cumsum(-1) > rng.random((ROWS, 1))).argmax(-1)


def by_lbfgs(logits: np.ndarray, targets: np.ndarray) -> float:
    temperature = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([temperature], max_iter=100, line_search_fn="strong_wolfe")
    z, y = torch.from_numpy(logits).double(), torch.from_numpy(targets)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        if y.dim() == 2:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(z / temperature, y.double())
        else:
            loss = torch.nn.functional.cross_entropy(z / temperature, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(temperature.detach())


@pytest.mark.parametrize("sharper", [0.4, 1.0, 3.0])
def test_the_refit_is_that_of_lbfgs(sharper: float) -> None:
    logits, targets = calibrated()
    found = fit_temperature(logits * sharper, targets)
    assert found == pytest.approx(by_lbfgs(logits * sharper, targets), rel=1e-3)
    assert found == pytest.approx(sharper, rel=0.05), "it undoes what was done to calibrated logits"


def test_the_refit_of_several_labels_is_that_of_lbfgs() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(ROWS, CLASSES))
    targets = (expit(logits) > rng.random(logits.shape)).astype(np.float32)
    assert fit_temperature(logits * 2, targets, several=True) == pytest.approx(by_lbfgs(logits * 2, targets), rel=1e-3)


def test_a_refit_changes_no_answer_and_mends_the_ece() -> None:
    validation, test = calibrated(0), calibrated(1)
    temperature = fit_temperature(validation[0] * 3, validation[1])
    before, after = Answers(test[0] * 3, test[1]), Answers(test[0] * 3, test[1], temperature=temperature)
    assert np.array_equal(before.predicted, after.predicted)
    found = bootstrap({"before": statistics.ece(before), "after": statistics.ece(after)}, 2)
    assert found["after"].value < 0.03 < 0.1 < found["before"].value


def test_a_model_without_a_mistake_is_not_made_infinitely_sure() -> None:
    logits = np.eye(CLASSES)
    assert fit_temperature(logits, np.arange(CLASSES)) == pytest.approx(COLDEST, rel=1e-3)


def test_bins_hold_all_answers_and_give_the_ece() -> None:
    answers = Answers(*calibrated())
    bins = Bins.of(answers)
    assert bins.share.sum() == pytest.approx(1)
    whole = statistics.ece(answers)
    ece = (bins.share * np.abs(bins.confidence - bins.right)).sum()
    assert ece == pytest.approx(float(whole.score(whole.features.sum(0))))
    sure = Bins.of(Answers(np.array([[1000.0, 0.0], [0.0, 0.0]]), np.array([0, 1])))
    assert sure.confidence.tolist() == [0.5, 1.0] and sure.right.tolist() == [0.0, 1.0], "1.0 is in the last bin"
