"""Losses of hidden states, attention and relations of tokens against numbers worked out by hand."""

import math

import pytest
import torch
from golden import HAND, INF, LN3, mean, outputs, spec
from torch import Tensor

from mangakd.core.outputs import AttentionTap
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.relation import RelationLoss


def test_hidden_by_hand() -> None:
    student = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]])
    teacher = torch.tensor([[[0.0, 3.0], [0.0, -1.0], [0.0, 0.0]]])  # right angle, opposite, padding
    sides = [outputs([[0.0]], [[1, 1, 0]], hidden={1: hidden}) for hidden in (student, teacher)]
    assert mean(HiddenLoss(layer_map="top"), *sides) == pytest.approx((10 / 2 + 9 / 2) / 2)
    assert mean(HiddenLoss(layer_map="top", compare="cosine"), *sides) == pytest.approx((1 + 2) / 2)


def test_hidden_projection_by_hand() -> None:
    loss = HiddenLoss(layer_map="top")
    loss.bind(spec(hidden=1), spec(hidden=2))
    loss.load_state_dict({"projections.1_to_1.weight": torch.tensor([[2.0], [0.0]]),
                          "projections.1_to_1.bias": torch.tensor([0.0, 1.0])})  # fmt: skip
    student = outputs([[0.0]], hidden={1: torch.tensor([[[3.0]]])})  # projected to (6, 1)
    teacher = outputs([[0.0]], hidden={1: torch.tensor([[[4.0, 4.0]]])})
    assert loss(student, teacher, {}).sum.item() == pytest.approx((4 + 9) / 2)


def tap(query: list, key: list) -> dict[int, AttentionTap]:
    q, k = torch.tensor([[query]]), torch.tensor([[key]])
    return {1: AttentionTap(q, k, q, scale=0.5)}


def test_attention_by_hand() -> None:
    """Scores 0.5 · Q Kᵀ: student all 0, teacher ((ln 3, 0), (0, ln 3)), so its maps are (0.75, 0.25), (0.25, 0.75)."""
    padding = [5.0, 5.0]
    student = outputs([[0.0]], [[1, 1, 0]], attention=tap([[0.0, 0.0]] * 2 + [padding], [[0.0, 0.0]] * 2 + [padding]))
    eye = [[2 * LN3, 0.0], [0.0, 2 * LN3], padding]
    teacher = outputs([[0.0]], [[1, 1, 0]], attention=tap(eye, [[1.0, 0.0], [0.0, 1.0], padding]))
    assert mean(AttentionLoss(), student, teacher) == pytest.approx(2 * LN3**2 / 4)
    assert mean(AttentionLoss(compare="kl"), student, teacher) == pytest.approx(HAND["forward_kl"], rel=1e-5)
    assert mean(AttentionLoss(compare="mse"), student, teacher) == pytest.approx(0.25**2, rel=1e-5)


def test_relation_by_hand() -> None:
    """Teacher X = a · I with a² / sqrt(2) = ln 3, so the relation is (0.75, 0.25); the student's is uniform."""
    a = math.sqrt(LN3 * math.sqrt(2))
    student = outputs([[0.0]], [[1, 1]], attention=tap([[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2))
    teacher = outputs([[0.0]], [[1, 1]], attention=tap([[a, 0.0], [0.0, a]], [[0.0, 0.0]] * 2))
    assert mean(RelationLoss(relations=["query"]), student, teacher) == pytest.approx(HAND["forward_kl"], rel=1e-5)
    assert mean(RelationLoss(relations=["key"]), student, teacher) == pytest.approx(0, abs=1e-6)


def test_relation_by_texts_divides_by_each_texts_length() -> None:
    """Two tokens as above in the first text; three in the second, where both models are alike: KL is 0."""
    a = math.sqrt(LN3 * math.sqrt(2))
    zero, padding = [0.0, 0.0], [5.0, 5.0]
    mask, both = [[1, 1, 0], [1, 1, 1]], torch.tensor([[[[0.0, 0.0]] * 3]])
    taps = []
    for first in ([zero, zero, padding], [[a, 0.0], [0.0, a], padding]):
        states = torch.cat([torch.tensor([[first]]), both])
        taps.append(outputs([[0.0]] * 2, mask, attention={1: AttentionTap(states, states, states)}))
    by_tokens, by_texts = (
        mean(RelationLoss(relations=["query"], average=average), *taps) for average in ("tokens", "texts")
    )
    assert by_tokens == pytest.approx(2 * HAND["forward_kl"] / 5, rel=1e-5)
    assert by_texts == pytest.approx(HAND["forward_kl"] / 2, rel=1e-5)


# --- attention far from where it looks -------------------------------------------------------------------------------


def far(score: float, allowed: Tensor | None = None) -> tuple[float, list[float]]:
    """KL of one head over two tokens and its gradient at the student's first query: the teacher looks at both tokens alike, the
    student's scores are (0, −score) for the first and (0, 0) for the second."""
    query = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]], requires_grad=True)
    key = torch.tensor([[[[0.0, 0.0], [-score, 0.0]]]])
    teacher = torch.zeros(1, 1, 2, 2)
    loss = AttentionLoss(compare="kl", layer_map="top")
    loss.bind(spec(), spec())
    total = loss(
        outputs([[0.0]], [[1, 1]], attention={1: AttentionTap(query, key, key, allowed=allowed)}),
        outputs([[0.0]], [[1, 1]], attention={1: AttentionTap(teacher, teacher, teacher)}),
        {},
    ).sum
    total.backward()
    return total.item(), query.grad[0, 0, 0].tolist()


@pytest.mark.parametrize("score", [50.0, 100.0, 1e4])
def test_attention_kl_is_not_cut_where_the_student_does_not_look(score: float) -> None:
    """KL((1/2, 1/2)‖(1, e^−s)) = s / 2 − ln 2; its slope in s is 1/2, so the gradient at the query is −s · −1/2 · …: it pulls."""
    value, gradient = far(score)
    assert value == pytest.approx(score / 2 - math.log(2), rel=1e-5)
    assert gradient == pytest.approx([score / 2, 0.0], rel=1e-5)


@pytest.mark.parametrize("kind", ["bool", "-inf", "min", "fp16"])
def test_attention_kl_is_cut_outside_a_window_alone(kind: str) -> None:
    """log 1e-30 there, whatever the score, and no gradient."""
    inside = torch.tensor([[[[True, False], [True, True]]]])
    dtype = torch.float16 if kind == "fp16" else torch.float32
    lowest = -INF if kind == "-inf" else torch.finfo(dtype).min
    allowed = inside if kind == "bool" else torch.zeros(1, 1, 2, 2, dtype=dtype).masked_fill(~inside, lowest)
    value, gradient = far(100.0, allowed)
    assert value == pytest.approx(-math.log(2) - 0.5 * math.log(1e-30), rel=1e-5)
    assert gradient == [0.0, 0.0]


def test_an_additive_bias_is_part_of_the_scores() -> None:
    """A bias of −100 is no window, though a library may write one as −10,000: that is a score, too."""
    for bias in (-100.0, -1e4):
        value, _ = far(0.0, torch.tensor([[[[0.0, bias], [0.0, 0.0]]]]))
        assert value == pytest.approx(-bias / 2 - math.log(2), rel=1e-5)
