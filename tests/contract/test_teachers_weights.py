"""Weights of an ensemble that are learnt from the validation labels: the optimum, from the right labels, or refused by name."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from contract.tiny_models import SCORE, Teachers, context
from scipy.optimize import minimize_scalar
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.runs.checks.teacher import weights
from mangakd.store.manifest import Manifest
from mangakd.teachers import ensemble_of
from mangakd.teachers.cached import Cached, CachedTeacher
from mangakd.teachers.ensemble import Ensemble, learned_weights
from mangakd.teachers.standard import Scale

CPU = torch.device("cpu")


def logits_and_labels(members: int, rows: int = 400, several: bool = False) -> tuple[Tensor, Tensor]:
    """Members that know the labels to different degrees, each from its own noise."""
    rng = np.random.default_rng(3)
    if several:
        labels = rng.integers(0, 2, (rows, 5)).astype(np.float32)
        truth = labels * 2 - 1
    else:
        labels = rng.integers(0, 5, rows)
        truth = np.eye(5)[labels] * 2
    strengths = np.array([1.0, 0.8, 0.1])[:members]
    noise = rng.normal(size=(members, rows, 5)) * 2
    return torch.from_numpy(strengths[:, None, None] * truth + noise).float(), torch.from_numpy(labels)


def likelihood(weights: np.ndarray, members: Tensor, labels: Tensor, several: bool) -> float:
    """Mean log likelihood of the labels, float64 numpy."""
    z = members.double().numpy()
    if several:
        p = 1 / (1 + np.exp(-z * (labels.numpy() * 2 - 1)))
    else:
        p = np.exp(z - z.max(-1, keepdims=True))
        p = (p / p.sum(-1, keepdims=True))[:, np.arange(len(labels)), labels.numpy()]
    return float(np.log(np.tensordot(weights, p, 1)).mean())


@pytest.mark.parametrize("several", [False, True])
def test_learned_weights_are_the_optimum_of_two(several: bool) -> None:
    members, labels = logits_and_labels(2, several=several)
    found = learned_weights(members, labels, several)
    best = minimize_scalar(
        lambda w: -likelihood(np.array([w, 1 - w]), members, labels, several),
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert 0.05 < best.x < 0.95, "an optimum at the end proves little"
    assert found[0] == pytest.approx(best.x, abs=1e-3)
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize("several", [False, True])
def test_learned_weights_beat_equal_ones_and_every_single_member(several: bool) -> None:
    members, labels = logits_and_labels(3, several=several)
    ours = likelihood(np.array(learned_weights(members, labels, several)), members, labels, several)
    for other in ([1 / 3] * 3, [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.3, 0.1], [0.8, 0.2, 0.0]):
        assert ours >= likelihood(np.array(other), members, labels, several) - 1e-7


def test_a_useless_member_gets_nothing() -> None:
    labels = torch.arange(50) % 5
    right = 8 * torch.eye(5)[labels]
    weights = learned_weights(torch.stack([right, -right]), labels, several=False)
    assert weights == pytest.approx([1, 0], abs=1e-6) and all(np.isfinite(weights))


@pytest.mark.parametrize("kind", [Cached, Ensemble])
def test_weights_of_validation_come_from_the_validation_labels(kind: type, tmp_path: Path) -> None:
    load = Teachers()
    found = context(tmp_path, load)
    provider = kind(path="bert", seeds=(0, 1, 2), weights="validation").provider(found)
    assert isinstance(provider, CachedTeacher) or kind is Ensemble
    split = found.splits["validation"]
    batch = split.collate(list(range(len(split))))
    members = provider.prepare(CPU, Need(answer=True))(batch).members
    expected = learned_weights(members, batch["labels"], several=False)
    np.testing.assert_allclose(provider.weights.numpy(), expected, atol=1e-3)
    other = dataclasses.replace(found, splits={**found.splits, "validation": found.splits["test"]})
    assert not np.allclose(
        kind(path="bert", seeds=(0, 1, 2), weights="validation").provider(other).weights.numpy(), expected, atol=1e-3
    )


def test_weights_of_validation_need_labels(tmp_path: Path) -> None:
    """Told before anything is loaded, and by the provider where nobody asked."""
    own = Ensemble(path="bert", seeds=(0, 2), weights="validation")
    weights(own, lambda: "labels")
    words = r"teacher\.weights=validation .* the task's head is of kind score\. Give teacher\.weights one number"
    with pytest.raises(UserError, match=words):
        weights(own, lambda: "score")
    with pytest.raises(UserError, match=words):
        own.provider(context(tmp_path, Teachers(SCORE)))


# --- combine=standardised --------------------------------------------------------------------------------------------


def test_a_member_that_gives_one_score_is_named() -> None:
    scores = torch.tensor([[[1.0], [2.0]], [[0.5], [0.5]]])
    with pytest.raises(UserError, match=r"member 2 gives all sequences of validation the score 0\.5"):
        Scale.of(scores).check()
    torch.testing.assert_close(Scale.of(scores[:1])(scores[:1]), torch.tensor([[[-1.0], [1.0]]]))


def test_labels_are_not_standardised(tmp_path: Path) -> None:
    options = Ensemble(path="bert", seeds=(0, 1), combine="standardised")
    with pytest.raises(
        UserError, match=r"teacher\.combine=standardised is for scores, and the task's head is of kind labels"
    ):
        weights(options, lambda: "labels")
    with pytest.raises(UserError, match="is for scores"):
        options.provider(context(tmp_path, Teachers()))
    with pytest.raises(UserError, match="needs the scores of validation rows"):
        ensemble_of([], combine="standardised")


@pytest.mark.parametrize("combine", ["probabilities", "standardised"])
def test_a_store_says_how_large_the_scores_are(combine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = context(tmp_path, Teachers(SCORE))
    options = Cached(path="bert", seeds=(0, 1), combine=combine, store=str(tmp_path / "store"))
    with caplog.at_level("INFO"):
        provider = options.provider(given)
    validation = given.splits["validation"]
    members = provider(validation.collate(range(len(validation)))).members
    assert members is not None
    if combine == "probabilities":  # as they are stored; the other brings them to one scale
        means, spreads = members.mean((1, 2)), members.std((1, 2), unbiased=False)
        wanted = [*zip(means.tolist(), spreads.tolist(), strict=True)]
        assert np.allclose(Manifest.load(tmp_path / "store").scores, wanted, rtol=1e-4)
    assert len(Manifest.load(tmp_path / "store").scores) == 2
    assert "member 2 of the teacher: scores around" in caplog.text
    options.provider(given)  # the numbers are no difference to a reader
