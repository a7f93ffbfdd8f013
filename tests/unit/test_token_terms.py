"""The terms of the loss of next tokens: numbers by hand, float64 on whole logits, what holds for any numbers, and the graph."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from token_cases import ANSWERS, EXACT, P, V, case, leaves, top_k
from torch import Tensor
from torch.nn import functional as F

from mangakd.core.errors import UserError
from mangakd.core.token_logits import Draws, FromStates, LmHead, TokenLogits, TopK
from mangakd.losses import chunked
from mangakd.losses.chunked import Terms, chunk_size, token_terms
from mangakd.losses.token_divergence import NAMES, divergence

BETA, SKEW = 0.3, 0.2
each_divergence = pytest.mark.parametrize("name", NAMES)


def terms(name: str = "forward_kl", alpha: float = 0.6, t: float = 1.0, vocabulary: int = V) -> Terms:
    return Terms(alpha, t, divergence(name, BETA, SKEW), vocabulary)


# --- by hand: teacher (0.75, 0.25), student (0.5, 0.5) ---------------------------------------------------------------

LN2, LN3 = math.log(2), math.log(3)
HAND = {
    "forward_kl": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),
    "reverse_kl": 0.5 * math.log(2 / 3) + 0.5 * LN2,
    # m = 0.3 p + 0.7 q = (0.575, 0.425)
    "jsd": 0.3 * (0.75 * math.log(0.75 / 0.575) + 0.25 * math.log(0.25 / 0.425))
    + 0.7 * (0.5 * math.log(0.5 / 0.575) + 0.5 * math.log(0.5 / 0.425)),
    # m = 0.2 p + 0.8 q = (0.55, 0.45)
    "skew_kl": 0.75 * math.log(0.75 / 0.55) + 0.25 * math.log(0.25 / 0.45),
    # m = 0.8 p + 0.2 q = (0.7, 0.3)
    "skew_reverse_kl": 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3),
    "total_variation": 0.25,
}


def of_probabilities(*p: float) -> FromStates:
    """One token whose probabilities are p: the state is their log, the head the identity."""
    return FromStates(torch.tensor([p]).log(), LmHead(torch.eye(len(p))))


def value(name: str, teacher: TokenLogits, student: FromStates, t: float = 1.0) -> float:
    size = student.head.vocabulary
    return token_terms(student, torch.zeros(1, dtype=torch.int64), teacher, terms(name, 1.0, t, size))[0].item()


@each_divergence
def test_divergence_by_hand(name: str) -> None:
    teacher, student = of_probabilities(0.75, 0.25), of_probabilities(0.5, 0.5)
    assert value(name, teacher, student) == pytest.approx(HAND[name], rel=1e-5)
    one = TopK(torch.tensor([[0]]), torch.tensor([[0.75]]).log(), torch.tensor([0.25]).log())
    assert value(name, one, student) == pytest.approx(HAND[name], rel=1e-5)


@each_divergence
def test_divergence_by_hand_at_t_2(name: str) -> None:
    """Softened by 2, (0.9, 0.1) is (0.75, 0.25), since 0.9 / 0.1 = 3²; T² is 4."""
    teacher, student = of_probabilities(0.9, 0.1), of_probabilities(0.5, 0.5)
    assert value(name, teacher, student, 2.0) == pytest.approx(4 * HAND[name], rel=1e-5)
    stored = TopK(torch.tensor([[1]]), torch.tensor([[0.25]]).log(), torch.tensor([0.75]).log(), 2.0)
    assert value(name, stored, student, 2.0) == pytest.approx(4 * HAND[name], rel=1e-5)


@each_divergence
def test_the_rest_is_one_bucket(name: str) -> None:
    """(0.75 | 0.2, 0.05) against (0.5 | 0.1, 0.4): the buckets are those by hand."""
    teacher = TopK(torch.tensor([[2]]), torch.tensor([[0.75]]).log(), torch.tensor([0.25]).log())
    assert value(name, teacher, of_probabilities(0.1, 0.4, 0.5)) == pytest.approx(HAND[name], rel=1e-5)


def test_draws_and_cross_entropy_by_hand() -> None:
    """Draws 0, 0, 0, 1 of a student of (0.5, 0.25, 0.25): (3 ln 2 + 2 ln 2) / 4. The text's token is 0: ln 2."""
    student = of_probabilities(0.5, 0.25, 0.25)
    assert value("forward_kl", Draws(torch.tensor([[0, 0, 0, 1]])), student) == pytest.approx(5 / 4 * LN2, rel=1e-5)
    assert token_terms(student, torch.tensor([0]), None, terms(alpha=0.0, vocabulary=3))[0].item() == pytest.approx(LN2)


# --- float64 ---------------------------------------------------------------------------------------------------------


def dense(student: FromStates, teacher: TokenLogits, targets: Tensor, alpha: float, name: str, t: float) -> Tensor:
    """By autograd on whole logits, with other operations."""
    head = student.head
    z = head.scale * (student.states @ head.weight.T + head.bias)
    z = z if head.soft_cap is None else head.soft_cap * torch.tanh(z / head.soft_cap)
    q = torch.softmax(z / t, -1)
    if isinstance(teacher, Draws):
        soft = -q.gather(1, teacher.ids).log().mean(1).sum()
    else:
        if isinstance(teacher, FromStates):
            p = torch.softmax(teacher.head.logits(teacher.states) / t, -1)
        else:
            p = torch.cat([teacher.log_probs.exp(), teacher.tail.exp()[:, None]], 1)
            top = q.gather(1, teacher.ids)
            q = torch.cat([top, 1 - top.sum(1, keepdim=True)], 1)
        soft = FORMS[name](p, q)
    return (1 - alpha) * F.cross_entropy(z, targets, reduction="sum") + alpha * t**2 * soft


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jsd": lambda p, q: BETA * kl(p, BETA * p + (1 - BETA) * q) + (1 - BETA) * kl(q, BETA * p + (1 - BETA) * q),
    "skew_kl": lambda p, q: kl(p, SKEW * p + (1 - SKEW) * q),
    "skew_reverse_kl": lambda p, q: kl(q, (1 - SKEW) * p + SKEW * q),
    "total_variation": lambda p, q: (p - q).abs().sum() / 2,
}


@pytest.mark.parametrize("t", [1.0, 2.5])
@pytest.mark.parametrize(("name", "kind"), [*product(NAMES, ("states", "topk")), ("forward_kl", "draws")])
def test_value_and_gradients_are_those_of_whole_logits(name: str, kind: str, t: float) -> None:
    for options, dtype, near in (({}, torch.float32, 2e-6), ({"scale": 0.7, "soft_cap": 3.0}, EXACT, 1e-12)):
        student, teacher, targets = case(dtype=dtype, **options)
        answer = ANSWERS[kind](teacher, t)
        ours = token_terms(student, targets, answer, terms(name, 0.6, t), chunk=3)[0]
        whole = dense(student, answer, targets, 0.6, name, t)
        torch.testing.assert_close(ours, whole, rtol=near, atol=near)
        gradients = [torch.autograd.grad(each, leaves(student)) for each in (ours, whole)]
        torch.testing.assert_close(*gradients, rtol=near, atol=near)


@pytest.mark.parametrize(("kind", "vocabulary"), [("states", V), ("states", V - 2), ("topk", V), ("draws", V)])
def test_gradients_of_finite_differences(kind: str, vocabulary: int) -> None:
    """Also where the teacher has fewer tokens, which are compared, and cross-entropy is over all."""
    student, teacher, targets = case(soft_cap=3.0)
    answer = ANSWERS[kind](teacher, 2.0)

    def total(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = FromStates(states, LmHead(weight, bias, soft_cap=3.0))
        return token_terms(given, targets, answer, terms(t=2.0, vocabulary=vocabulary), chunk=4)[0]

    assert torch.autograd.gradcheck(total, leaves(student), rtol=1e-6, atol=1e-7)


# --- what holds for any numbers --------------------------------------------------------------------------------------


@each_divergence
def test_a_divergence_is_zero_for_equal_models_only_and_smaller_for_buckets(name: str) -> None:
    student, teacher, targets = case()
    for t in (1.0, 3.0):
        whole, coarse, same = (
            token_terms(student, targets, answer, terms(name, 1.0, t))[0].item()
            for answer in (teacher, top_k(teacher, t), student)
        )
        assert 1e-3 < coarse < whole and same == pytest.approx(0, abs=1e-12)


@each_divergence
def test_all_tokens_as_top_k_are_the_states(name: str) -> None:
    student, teacher, targets = case()
    totals = [
        token_terms(student, targets, answer, terms(name, t=2.0))[0] for answer in (top_k(teacher, 2.0, V), teacher)
    ]
    torch.testing.assert_close(*totals, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(each, leaves(student)) for each in totals))


def test_jsd_tends_to_both_kls() -> None:
    student, teacher, targets = case()

    def of(form: Any) -> float:
        return token_terms(student, targets, teacher, Terms(1.0, 1.0, form, V))[0].item()

    least = 1e-6
    assert of(divergence("jsd", least, SKEW)) / least == pytest.approx(of(divergence("forward_kl", 0, 0)), rel=1e-3)
    assert of(divergence("jsd", 1 - least, SKEW)) / least == pytest.approx(of(divergence("reverse_kl", 0, 0)), rel=1e-3)


def test_draws_are_unbiased() -> None:
    """One position, each of its V possible draws weighted by the teacher's probability: value and gradient are those of forward
    KL, plus the teacher's entropy."""
    student, teacher, targets = (each[:1] for each in case())
    p = torch.softmax(teacher.head.logits(teacher.states), -1)[0]

    def total(answer: TokenLogits) -> Tensor:
        return token_terms(student, targets, answer, terms(alpha=1.0))[0]

    exact = total(teacher)
    drawn = torch.stack([p[i] * total(Draws(torch.tensor([[i]]))) for i in range(V)]).sum()
    torch.testing.assert_close(drawn, exact + torch.special.entr(p).sum())
    torch.testing.assert_close(*(torch.autograd.grad(each, leaves(student)) for each in (drawn, exact)))


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("size", [1, 2, 3, P, 100])
def test_chunks_and_blocks_of_every_size_are_the_same(kind: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, targets = case()
    answer = ANSWERS[kind](teacher, 2.0)
    whole = token_terms(student, targets, answer, terms(t=2.0))
    monkeypatch.setattr(chunked, "_block", lambda logits: 2)
    parts = token_terms(student, targets, answer, terms(t=2.0), chunk=size)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(each[0], leaves(student)) for each in (parts, whole)))


def test_chunk_size_follows_memory() -> None:
    assert [chunk_size(v) for v in (1_000, 128_256, 262_144, 10**6)] == [256, 256, 128, 64]


@each_divergence
@pytest.mark.parametrize("far", [60.0, 200.0, 1e4])
def test_a_student_that_rules_out_the_rest_stays_finite(name: str, far: float) -> None:
    """fp32: the mass of the rest is below what 1 − Σ q can show, and below the least number."""
    states = torch.tensor([[far, 0.0, 0.0]], requires_grad=True)
    teacher = TopK(torch.tensor([[0]]), torch.tensor([[0.6]]).log(), torch.tensor([0.4]).log())
    total = token_terms(
        FromStates(states, LmHead(torch.eye(3))), torch.tensor([1]), teacher, terms(name, vocabulary=3)
    )[0]
    total.backward()
    assert total.isfinite() and states.grad is not None and states.grad.isfinite().all()
    if name == "forward_kl":  # 0.6 · (0.6 log 0.6 + 0.4 (log 0.4 + far − ln 2)) + 0.4 · far
        expected = 0.6 * (0.6 * math.log(0.6) + 0.4 * (math.log(0.4) + far - LN2)) + 0.4 * far
        assert total.item() == pytest.approx(expected, rel=1e-5)
        assert states.grad[0].tolist() == pytest.approx([0.4 + 0.6 * 0.4, -0.4 - 0.6 * 0.2, -0.6 * 0.2], rel=1e-5)


# --- the graph -------------------------------------------------------------------------------------------------------


def test_upstream_gradients_multiply_also_by_0_and_twice() -> None:
    student, teacher, targets = case()
    total = token_terms(student, targets, teacher, terms())[0]
    one, three, none = (
        torch.autograd.grad(total * factor, leaves(student), retain_graph=True) for factor in (1.0, 3.0, 0.0)
    )
    torch.testing.assert_close(three, tuple(3 * each for each in one))
    assert not any(each.any() for each in none) and all(each.any() for each in one)


def test_a_second_derivative_is_refused() -> None:
    student, teacher, targets = case()
    total = token_terms(student, targets, teacher, terms())[0]
    with pytest.raises(UserError, match="no second derivative"):
        torch.autograd.grad(total, student.states, create_graph=True)


def test_a_frozen_head_gets_no_gradient_and_no_memory() -> None:
    student, teacher, targets = case()
    frozen = FromStates(student.states, LmHead(student.head.weight.detach(), student.head.bias.detach()))  # type: ignore[union-attr]
    total = token_terms(frozen, targets, teacher, terms())[0]
    assert [each is None for each in total.grad_fn.saved_tensors] == [False, True, True]  # type: ignore[union-attr]
    (free,) = torch.autograd.grad(token_terms(student, targets, teacher, terms())[0], student.states)
    torch.testing.assert_close(torch.autograd.grad(total, student.states)[0], free)


def test_without_gradients_none_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, targets = case()
    expected = token_terms(student, targets, teacher, terms())[0].detach()
    monkeypatch.setattr(chunked, "add_product", None)
    with torch.no_grad():
        assert token_terms(student, targets, teacher, terms())[0] == expected


def test_a_tied_head_adds_to_the_embeddings_gradient() -> None:
    student, teacher, targets = case()
    table, ids = student.head.weight, torch.arange(P)

    def total(weight: Tensor) -> Tensor:
        return token_terms(FromStates(F.embedding(ids, weight), LmHead(weight)), targets, teacher, terms())[0]

    assert torch.autograd.gradcheck(total, (table,), rtol=1e-6, atol=1e-7)
