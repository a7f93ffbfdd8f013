"""Losses of vectors: values by hand, and what must hold whatever the vectors are."""

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.base import LossCallback
from mangakd.losses.contrastive import ContrastiveLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.losses.pair_score import PairScoreLoss
from mangakd.losses.similarity import SimilarityLoss
from mangakd.losses.vector import VectorLoss, main_directions

ROOT = math.sqrt(0.5)


def spec(width: int, name: str = "student") -> ModelSpec:
    return ModelSpec(name, 2, 8, 2, Head("vector", width))


def bound(loss: LossCallback, student: int = 2, teacher: int | None = 2) -> LossCallback:
    loss.bind(spec(student), None if teacher is None else spec(teacher, "teacher"))
    return loss


def outputs(vectors: Tensor) -> Outputs:
    return Outputs.of("vector", vectors, torch.ones(len(vectors), 3))


def batch(sizes: list[int], keys: list[int] | None = None, **columns: list[float]) -> dict[str, Tensor]:
    first = torch.tensor([0, *sizes]).cumsum(0)
    made = {name: torch.tensor(values) for name, values in columns.items()}
    return {"first": first, "key": torch.tensor(keys or range(int(first[-1]))), **made}


def mean(loss: LossCallback, student: Tensor, teacher: Tensor | None, rows: dict[str, Tensor]) -> float:
    result = loss(outputs(student), None if teacher is None else outputs(teacher), rows)
    return float(result.sum / result.count)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_squared_distance_of_unit_vectors_is_two_minus_two_cosines() -> None:
    s, t = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[ROOT, ROOT], [0.0, 1.0]])
    assert mean(bound(VectorLoss()), s, t, {}) == pytest.approx((1 - ROOT) / 2, rel=1e-6)
    each = bound(VectorLoss(compare="mse"))
    assert mean(each, s[:1], t[:1], {}) == pytest.approx(2 - 2 * ROOT, rel=1e-6)
    assert mean(each, s[1:], t[1:], {}) == pytest.approx(1.0), "lengths stay as the models give them"


def test_similarity_by_hand() -> None:
    """Cosines of the student: 0, 0 and 1 (texts 2 and 3); of the teacher 0, 1 and 0 (texts 1 and 3)."""
    s, t = torch.tensor([[1.0, 0], [0, 1], [0, 3]]), torch.tensor([[1.0, 0], [0, 2], [5, 0]])
    assert mean(bound(SimilarityLoss(compare="mse")), s, t, {}) == pytest.approx((0.5 + 0.5 + 1) / 3, rel=1e-6)
    high = math.exp(1) / (1 + math.exp(1))  # T = 1: p of text 1 is (low, high) over texts 2 and 3, q is even
    first = high * math.log(2 * high) + (1 - high) * math.log(2 * (1 - high))
    second = 0.5 * math.log(0.5 / (1 - high)) + 0.5 * math.log(0.5 / high)  # p even, q (low, high)
    third = high - (1 - high)  # p (high, low), q (low, high): the logs differ by 1
    found = mean(bound(SimilarityLoss(temperature=1.0)), s, t, {})
    assert found == pytest.approx((first + second + third) / 3, rel=1e-5)


def test_contrast_by_hand() -> None:
    """Two rows: cosines of each anchor are 1 and 0 to its own and the other positive."""
    vectors = torch.tensor([[1.0, 0], [2, 0], [0, 1], [0, 4]])
    rows = batch([2, 2], labels=[1, 1])
    expected = math.log(1 + math.exp(-1 / 0.5))
    assert mean(bound(ContrastiveLoss(temperature=0.5), teacher=None), vectors, None, rows) == pytest.approx(expected)
    # A teacher for whom both positives are equal: cross-entropy of (1/2, 1/2), less its entropy.
    even = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    soft = bound(ContrastiveLoss(temperature=0.5, soft=1.0))
    assert mean(soft, vectors, even, rows) == pytest.approx(expected + 1 - math.log(2), rel=1e-5)


def test_pair_score_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0], [1, 1], [0, 1], [0, 2], [5, 5]])
    rows = batch([2, 2, 1], score=[0.5, 0.25, float("nan")])
    expected = ((ROOT - 0.5) ** 2 + 0.75**2) / 2
    assert mean(bound(PairScoreLoss(), teacher=None), vectors, None, rows) == pytest.approx(expected, rel=1e-6)


# --- what must hold --------------------------------------------------------------------------------------------------

LOSSES = {
    "vector": lambda: VectorLoss(dims=[6, 3], width="linear"),
    "similarity": lambda: SimilarityLoss(dims=[6, 3]),
    "contrastive": lambda: ContrastiveLoss(dims=[6, 3], soft=0.5),
}


@pytest.mark.parametrize("name", LOSSES)
def test_lengths_of_the_student_s_vectors_and_order_of_rows_mean_nothing(name: str) -> None:
    torch.manual_seed(0)
    loss = bound(LOSSES[name](), 6, 8)
    s, t = random(8, 6), random(8, 8, seed=1)
    rows = batch([2] * 4, labels=[1, 1, -100, 1])
    value = mean(loss, s, t, rows)
    assert mean(loss, s * random(8, 1, seed=2).exp(), t, rows) == pytest.approx(value, rel=1e-4)
    order, chosen = [3, 1, 0, 2], [6, 7, 2, 3, 0, 1, 4, 5]
    moved = {"first": rows["first"], "key": rows["key"][chosen], "labels": rows["labels"][order]}
    assert mean(loss, s[chosen], t[chosen], moved) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("compare", ["kl", "mse"])
def test_similarities_do_not_depend_on_a_rotation_and_vanish_for_equal_ones(compare: str) -> None:
    loss, t = bound(SimilarityLoss(compare=compare), 8, 8), random(6, 8)
    turned = t @ torch.linalg.qr(random(8, 8, seed=1)).Q
    assert mean(loss, turned, t, {}) == pytest.approx(0, abs=1e-6) and mean(loss, random(6, 8, seed=3), t, {}) > 0.001


def test_a_text_that_is_twice_in_a_batch_does_not_take_all_of_the_share() -> None:
    loss = bound(SimilarityLoss(temperature=0.05), 4, 4)
    s, t = random(4, 4), random(4, 4, seed=1)
    twice = [0, 1, 2, 3, 3]
    keys = {"key": torch.tensor(twice)}
    result = loss(outputs(s[twice]), outputs(t[twice]), keys)
    assert result.count == 5 and result.sum > 0
    apart = loss(outputs(s[twice]), outputs(t[twice]), {})
    assert not torch.isclose(result.sum, apart.sum, rtol=1e-2), "without keys the copy counts as a nearest text"
    alone = loss(outputs(s[[3, 3]]), outputs(t[[3, 3]]), {"key": torch.tensor([3, 3])})
    assert alone.sum == 0 and alone.count == 0


def test_texts_equal_to_the_positive_or_the_anchor_are_no_negatives() -> None:
    loss = bound(ContrastiveLoss(temperature=0.1), 4, None)
    vectors = random(7, 4)
    vectors[[3, 6]] = vectors[[1, 0]]
    rows = batch(
        [2, 2, 3], [0, 1, 2, 1, 4, 5, 0], labels=[1, 1, 1]
    )  # row 1 has row 0's positive; row 2 negates row 0's anchor
    ours = normalize(vectors) @ normalize(vectors).T / 0.1
    first = -torch.log_softmax(ours[0, [1, 5]], 0)[0]
    result = loss(outputs(vectors), None, rows)
    second = -torch.log_softmax(ours[2, [3, 5, 6]], 0)[0]
    third = -torch.log_softmax(ours[4, [5, 1, 3, 6]], 0)[0]
    assert result.sum.item() == pytest.approx(float(first + second + third), rel=1e-5)


def test_a_positive_that_repeats_its_anchor_stays_the_positive() -> None:
    loss = bound(ContrastiveLoss(temperature=0.1), 4, None)
    vectors = random(4, 4)
    ours = normalize(vectors) @ normalize(vectors).T / 0.1
    expected = [-torch.log_softmax(ours[0, [1, 3]], 0)[0], -torch.log_softmax(ours[2, [3, 1]], 0)[0]]
    result = loss(outputs(vectors), None, batch([2, 2], [7, 7, 8, 9], labels=[1, 1]))
    assert result.sum.item() == pytest.approx(float(sum(expected)), rel=1e-5)


def test_prefixes_are_means_over_the_student_cut_and_the_teacher_whole() -> None:
    s, t = random(6, 8), random(6, 5, seed=1)
    parts = [mean(bound(SimilarityLoss(), size, 5), s[:, :size], t, {}) for size in (8, 4, 2)]
    assert mean(bound(SimilarityLoss(dims=[8, 4, 2]), 8, 5), s, t, {}) == pytest.approx(np.mean(parts), rel=1e-5)


# --- PCA -------------------------------------------------------------------------------------------------------------


def test_directions_equal_those_of_numpy_s_svd() -> None:
    vectors = random(300, 7) * torch.arange(1, 8) + 3
    mean_, directions = main_directions(vectors, 4)
    rows = vectors.double().numpy()
    _, _, found = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(mean_.numpy(), rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.diag(found[:4] @ directions.numpy())), 1, rtol=1e-5)
    assert all(column[column.abs().argmax()] > 0 for column in directions.T)


def test_a_student_of_the_teacher_s_main_directions_has_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    t = random(300, 7) * torch.arange(1, 8) + 3
    losses = LossSet({"vector": VectorLoss(width="pca", compare="mse", dims=[4, 2])})
    losses.bind(spec(4), spec(7, "teacher"))
    assert losses.calibrates_on("train") and not losses.calibrates_on("validation")
    losses.calibrate(t, "train")
    _, directions = main_directions(t, 4)
    rotated = (t - t.mean(0)) @ directions
    loss = losses.callbacks["vector"]
    assert mean(loss, rotated[:20], t[:20], {}) == pytest.approx(0, abs=1e-6)
    assert mean(loss, rotated[:20].flip(1), t[:20], {}) > 0.1
    other = LossSet({"vector": VectorLoss(width="pca", compare="mse", dims=[4, 2])})
    other.bind(spec(4), spec(7, "teacher"))
    other.load_state_dict(losses.state_dict())
    assert mean(other.callbacks["vector"], rotated[:20], t[:20], {}) == pytest.approx(0, abs=1e-6), (
        "from the checkpoint"
    )
    with pytest.raises(UserError, match=r"losses\.vector\.width=pca finds 4 directions.*there are 3"):
        losses.calibrate(t[:3], "train")
    assert not caplog.records or caplog.records[0].levelno < logging.ERROR


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "widths", "words"),
    [
        (lambda: VectorLoss(width="none"), (4, 8), r"width=none needs equal widths.*\[4\] dimensions.*8.*width=auto"),
        (lambda: VectorLoss(width="none", dims=[8, 4]), (8, 8), r"prefixes have \[8, 4\] dimensions"),
        (lambda: VectorLoss(width="pca"), (8, 4), r"student of 8 dimensions.*teacher has 4.*width=linear"),
        (lambda: VectorLoss(width="wide"), (8, 8), r"width='wide' is unknown"),
        (lambda: SimilarityLoss(dims=[]), (8, 8), r"dims=\[\] must be different whole numbers from 1 to 8"),
        (lambda: SimilarityLoss(dims=[9]), (8, 8), r"dims=\[9\]"),
        (lambda: SimilarityLoss(dims=[4, 4]), (8, 8), r"dims=\[4, 4\]"),
        (lambda: SimilarityLoss(temperature=0), (8, 8), r"temperature=0 must be a number above 0"),
        (lambda: ContrastiveLoss(soft=1.5), (8, 8), r"soft=1\.5 must be in \[0, 1\]"),
        (lambda: ContrastiveLoss(teacher_temperature=-1), (8, 8), r"teacher_temperature=-1 must be"),
        (lambda: ContrastiveLoss(soft=0.5), (8, None), r"learns from a teacher and there is none"),
        (lambda: SimilarityLoss(), (8, None), r"learns from a teacher and there is none"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(loss, widths, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=words):
        bound(loss(), *widths)


def test_heads_and_rows_that_do_not_fit_are_refused() -> None:
    labels = ModelSpec("student", 2, 8, 2, Head.of_labels("ab"))
    with pytest.raises(UserError, match="needs a head of vector; the head is 2 labels"):
        LossSet({"similarity": SimilarityLoss()}).bind(labels, labels)
    with pytest.raises(UserError, match="needs a head of labels"):
        LossSet({"output": OutputLoss()}).bind(spec(8), spec(8))
    for loss in (ContrastiveLoss(), PairScoreLoss()):
        with pytest.raises(UserError, match=r"each row of the batch is one text.*data\.columns\.positive"):
            bound(loss, teacher=None)(outputs(random(2, 2)), None, {"key": torch.arange(2), "score": torch.ones(2)})


def test_losses_that_compare_rows_gather_those_of_other_devices() -> None:
    losses = LossSet({"similarity": SimilarityLoss(), "contrastive": ContrastiveLoss(), "vector": VectorLoss()})
    losses.bind(spec(8), spec(8))
    assert losses.comparing == ["similarity", "contrastive"]
    losses.check_ranks(2, "")
