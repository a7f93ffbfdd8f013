"""teacher.calibrate and teacher.smooth: golden numbers by hand, the fitted temperature, the store, and what is refused."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contract.tiny_models import HEAD, SCORE, SEVERAL, Teachers, context
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.temperature_fit import fit_temperature
from mangakd.data.encoded import EncodedSplit
from mangakd.store.manifest import Manifest
from mangakd.teachers.cached import Cached, stored
from mangakd.teachers.calibrated import CalibratedTeacher, calibrated, check_smooth, smoothed
from mangakd.teachers.ensemble import Ensemble, members_on
from mangakd.teachers.local import Local
from mangakd.teachers.options import TeacherContext, TeacherOptions

INF = float("inf")


@pytest.mark.parametrize(
    ("odds", "share", "expected"),
    [
        # p = (0.9, 0.05, 0.05); λ = (0.9 − 0.8) / (0.9 − 1/3) = 3/17: 14/17 · 0.05 + 1/17 = 1/10.
        ([18, 1, 1], 0.2, [0.8, 0.1, 0.1]),
        # p = (0.96, 0.04, 0, 0), which is not even in the others: λ = 0.06 / 0.71; 0.65/0.71 · 0.04 + 0.015/0.71.
        ([96, 4, 0, 0], 0.1, [0.9, 0.041 / 0.71, 0.015 / 0.71, 0.015 / 0.71]),
        # Not above 1 − ε: untouched.
        ([3, 1], 0.25, [0.75, 0.25]),
        ([1, 1, 1, 1], 0.1, [0.25] * 4),
    ],
)
def test_smoothing_is_what_the_formula_says(odds: list[float], share: float, expected: list[float]) -> None:
    logits = torch.tensor([odds]).clamp(min=1e-30).log() + 3
    found = torch.softmax(smoothed(logits, share, several=False), -1)
    np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-5)
    assert found.max() <= 1 - share + 1e-6


def test_smoothing_leaves_what_a_teacher_rules_out_and_the_logits_of_unsure_rows() -> None:
    logits = torch.tensor([[9.0, -INF, 0.0, 0.0], [7.0, -INF, -INF, -INF], [1.0, 0.5, 0.0, -INF]])
    found = smoothed(logits, 0.1, several=False)
    np.testing.assert_allclose(torch.softmax(found[0], -1).numpy(), [0.9, 0, 0.05, 0.05], atol=1e-6)
    assert torch.equal(found[1:], logits[1:])
    assert float(torch.logsumexp(found[0], -1)) == pytest.approx(float(torch.logsumexp(logits[0], -1)), rel=1e-6)
    assert smoothed(logits, 0.0, several=False) is logits


def test_smoothing_of_several_labels_cuts_each() -> None:
    found = torch.sigmoid(smoothed(torch.tensor([[9.0, -9.0, 1.0]]), 0.02, several=True))
    np.testing.assert_allclose(found.numpy(), [[0.98, 0.02, 1 / (1 + math.exp(-1))]], rtol=1e-6)


def test_the_temperature_of_two_rows_by_hand() -> None:
    """One model, two classes, margin 8: three of four rows right. The best T makes sigmoid(8 / T) = 3/4, T = 8 / log 3."""
    logits = np.array([[8.0, 0.0]] * 4)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(8 / math.log(3), rel=1e-3)
    several = fit_temperature(np.full((4, 1), 8.0), np.array([[1], [1], [1], [0]]), several=True)
    assert several == pytest.approx(8 / math.log(3), rel=1e-3)
    ruled_out = np.array([*logits.tolist(), [0.0, -INF]])
    assert fit_temperature(ruled_out, np.array([0, 0, 0, 1, 1])) == pytest.approx(8 / math.log(3), rel=1e-3)
    assert fit_temperature(np.array([[0.0, -INF]]), np.array([1])) == 1.0


def test_the_temperature_of_an_ensemble_fits_its_mixture() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2000, 5)) * 2
    targets = (np.exp(log_softmax(truth, -1)).cumsum(-1) > rng.random((2000, 1))).argmax(-1)
    members = 3 * np.stack([truth + rng.normal(size=truth.shape), truth + 2 * rng.normal(size=truth.shape)])
    weights = (0.7, 0.3)

    def loss(t: float) -> float:
        own = log_softmax(members / t, -1)[:, np.arange(2000), targets]
        return -float(logsumexp(own, axis=0, b=np.array(weights)[:, None]).mean())

    best = minimize_scalar(loss, bounds=(0.1, 20), method="bounded").x
    assert fit_temperature(members, targets, weights=weights) == pytest.approx(best, rel=2e-3)
    assert abs(fit_temperature(members[0], targets) / best - 1) > 0.02, "equal temperatures prove nothing"


def learnable(cache: Path, load: Teachers) -> TeacherContext:
    """A context whose validation labels are drawn from the teacher's probabilities at T = 3: it is over-confident by 3."""
    found = context(cache, load, batch_size=8)
    split = found.splits["validation"]
    logits = members_on(split, Local(path="bert", seed=1).provider(found), found)[0].double() / 3
    rng = np.random.default_rng(1)
    if load.head.several:
        labels = (torch.sigmoid(logits).numpy() > rng.random(logits.shape)).astype("f4")
    else:
        labels = (torch.softmax(logits, -1).numpy().cumsum(-1) > rng.random((len(logits), 1))).argmax(-1)
    columns = {**split.columns, "labels": labels}
    return replace(
        found, splits={**found.splits, "validation": EncodedSplit(split.sides, columns, split._units, split.first)}
    )


KINDS: list[TeacherOptions] = [
    Local(path="bert", seed=1, calibrate="temperature"),
    Ensemble(path="bert", seeds=(1, 2), weights=[3, 1], calibrate="temperature"),
    Ensemble(path="bert", seeds=(1, 2), combine="logits", calibrate="temperature"),
    Cached(path="bert", seeds=(1, 2), weights=[3, 1], calibrate="temperature"),
]


@pytest.mark.parametrize("head", [HEAD, SEVERAL], ids=["one label", "several labels"])
@pytest.mark.parametrize("options", KINDS, ids=lambda each: type(each).__name__)
def test_live_ensemble_and_stored_teachers(options: TeacherOptions, head: object, tmp_path: Path) -> None:
    """Calibrating fits what was learnt from the raw answers, and the NLL on validation falls."""
    share = 0.45 if head is SEVERAL else 0.65  # these teachers are not sure of much
    options = replace(options, smooth=share)
    found = learnable(tmp_path, Teachers(head))  # type: ignore[arg-type]
    teacher = calibrated(options, found).prepare(torch.device("cpu"), Need(answer=True))
    raw = options.provider(found).prepare(torch.device("cpu"), Need(answer=True))
    assert isinstance(teacher, CalibratedTeacher) and teacher.members == raw.members
    split = found.splits["validation"]
    batch = split.collate(list(range(len(split))))
    own, before = teacher(batch), raw(batch)
    targets = torch.from_numpy(split.columns["labels"])

    def nll(outputs: object, t: float = 1.0) -> float:
        if head is SEVERAL:
            on, off = outputs.log_sigmoid(t)  # type: ignore[attr-defined]
            return -float(torch.where(targets > 0, on, off).mean())
        return -float(outputs.log_probs(t)[torch.arange(len(targets)), targets].mean())  # type: ignore[attr-defined]

    best = minimize_scalar(lambda t: nll(before, t), bounds=(0.5, 20), method="bounded").x
    assert teacher.temperature == pytest.approx(best, rel=0.01) and teacher.temperature > 1.3
    unsmoothed = CalibratedTeacher(raw, teacher.temperature)(batch)
    assert nll(unsmoothed) == pytest.approx(nll(before, teacher.temperature), rel=1e-4)
    assert nll(unsmoothed) < nll(before) - 0.01
    p = own.log_sigmoid()[0].exp() if head is SEVERAL else own.log_probs().exp()
    assert float(p.max()) <= 1 - share + 1e-5
    assert (p - (unsmoothed.log_sigmoid()[0] if head is SEVERAL else unsmoothed.log_probs()).exp()).abs().max() > 0.01
    assert teacher.fingerprint not in (raw.fingerprint, CalibratedTeacher(raw, teacher.temperature, 0.1).fingerprint)


def test_a_store_serves_every_temperature_and_its_manifest_says_the_last(tmp_path: Path) -> None:
    load = Teachers()
    found = learnable(tmp_path, load)
    options = Cached(path="bert", seeds=(1,), store=str(tmp_path / "store"))
    options.provider(found)
    forwards = load.forwards
    teacher = calibrated(replace(options, calibrate="temperature"), found)
    assert load.forwards == forwards, "the teacher is not asked again"
    assert isinstance(teacher, CalibratedTeacher)
    assert Manifest.load(tmp_path / "store").calibration == pytest.approx(teacher.temperature)
    options.provider(found)  # a run without calibration reads it, too
    live = calibrated(Local(path="bert", seed=1, calibrate="temperature"), found)
    assert isinstance(live, CalibratedTeacher) and live.temperature == pytest.approx(teacher.temperature, rel=1e-4)


def test_a_stage_that_stores_the_teacher_calibrates_it_alike() -> None:
    options = stored(Local(path="bert", calibrate="temperature", smooth=0.05), "labels")
    assert (options.calibrate, options.smooth) == ("temperature", 0.05)


def test_without_options_the_provider_is_the_teacher_itself(tmp_path: Path) -> None:
    found = context(tmp_path, Teachers())
    assert not isinstance(calibrated(Local(path="bert", seed=1), found), CalibratedTeacher)
    alone = calibrated(Local(path="bert", seed=1, smooth=0.1), found)
    assert isinstance(alone, CalibratedTeacher) and alone.temperature == 1.0 and alone.gives.hidden


def test_heads_without_labels_ignore_both_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        teacher = calibrated(
            Local(path="bert", calibrate="temperature", smooth=0.1), context(tmp_path, Teachers(SCORE))
        )
    assert not isinstance(teacher, CalibratedTeacher)
    assert "teacher.calibrate=temperature is ignored" in caplog.text and "teacher.smooth=0.1 is ignored" in caplog.text


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"teacher\.calibrate=platt; known: temperature"):
        Local(path="bert", calibrate="platt")
    for share in (-0.1, 1, True, "much"):
        with pytest.raises(UserError, match=r"teacher\.smooth=.* must be from 0"):
            Local(path="bert", smooth=share)  # type: ignore[arg-type]
    check_smooth(0.79, HEAD)
    with pytest.raises(UserError, match=r"must be below 1 − 1 / 5 = 0\.8"):
        check_smooth(0.8, HEAD)
    with pytest.raises(UserError, match=r"1 / 2 = 0\.5"):
        check_smooth(0.5, SEVERAL)
    check_smooth(0.99, SCORE)
