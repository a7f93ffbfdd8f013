"""`TokensLoss` in a LossSet: means over a step's targets, gradient norms, autocast, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from token_cases import EXACT, D, P, V, case, draws, leaves, top_k
from torch import Tensor
from torch.nn import functional as F

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs
from mangakd.core.schedule import Linear
from mangakd.core.spec import Head, ModelSpec
from mangakd.core.token_logits import Draws, FromStates, LmHead, TokenLogits, TopK
from mangakd.losses.gradient_norms import GradientNorms
from mangakd.losses.loss_set import LossSet
from mangakd.losses.tokens import TokensLoss


def spec(name: str, vocabulary: int = V, digest: str = "v1") -> ModelSpec:
    return ModelSpec(name, 2, D, 1, Head("tokens", vocabulary), digest)


def sides(answer: TokenLogits, student: FromStates, targets: Tensor) -> tuple[Outputs, Outputs, dict[str, Any]]:
    mask = torch.ones(1, P)
    return Outputs(None, mask, tokens=student), Outputs(None, mask, tokens=answer), {"next": targets}


def bound(teacher: ModelSpec | None = None, **options: Any) -> LossSet:
    losses = LossSet({"tokens": TokensLoss(**options)})
    losses.bind(spec("student"), teacher or spec("teacher"))
    return losses


def test_terms_are_means_over_the_targets_of_the_step() -> None:
    """Two micro-batches of 2 and 5 of a step's 7 targets, with a schedule of alpha."""
    student, teacher, targets = case(dtype=torch.float32)
    losses = bound(alpha=Linear(0.0, 1.0), weight=0.5)
    whole = losses(*sides(teacher, student, targets), progress=0.25)
    parts = []
    for rows in (slice(0, 2), slice(2, P)):
        own, other, batch = sides(teacher[rows], student[rows], targets[rows])
        share = 2 * len(targets[rows]) / P  # of two micro-batches' mean
        parts.append(losses(own, other, {**batch, "scale": {"targets": share}}, progress=0.25))
    for pick in (
        lambda out: out.total,
        lambda out: out.logs["tokens/cross_entropy"],
        lambda out: out.logs["tokens/divergence"],
    ):
        torch.testing.assert_close(sum(map(pick, parts)) / 2, pick(whole))
    logs = whole.logs
    expected = 0.5 * (0.75 * logs["tokens/cross_entropy"] + 0.25 * logs["tokens/divergence"])
    torch.testing.assert_close(whole.total.detach(), expected)


def test_gradient_norms_and_the_step_read_the_same_gradient() -> None:
    student, teacher, targets = case(dtype=torch.float32)
    module = torch.nn.ParameterDict({"states": student.states, "weight": student.head.weight})
    student = FromStates(module["states"], LmHead(module["weight"], student.head.bias))
    norms, out = GradientNorms(module), bound()(*sides(teacher, student, targets), progress=0.0)
    norms.add(out.weighted, 1.0)
    out.total.backward()
    squares = sum(each.grad.square().sum() for each in module.values())  # type: ignore[union-attr]
    torch.testing.assert_close(norms.take(lambda each: each)["tokens"], torch.as_tensor(squares).sqrt())


def test_a_head_made_under_autocast_multiplies_in_bf16() -> None:
    student, teacher, targets = case(dtype=torch.float32)
    exact = bound()(*sides(teacher, student, targets), progress=0.0).total
    with torch.autocast("cpu", torch.bfloat16):
        low = FromStates(student.states, LmHead(student.head.weight, student.head.bias))
        assert low.head.dtype == torch.bfloat16
        total = bound()(*sides(teacher, low, targets), progress=0.0).total
    assert total.dtype == torch.float32 and 0 < abs(total - exact) < 0.05
    total.backward()
    gradients = [each.grad for each in leaves(student)]
    expected = torch.autograd.grad(exact, leaves(student))
    for ours, theirs in zip(gradients, expected, strict=True):
        assert ours is not None and ours.dtype == torch.float32
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


def test_what_a_teachers_answer_does_not_allow_is_refused_by_name() -> None:
    student, teacher, targets = case()
    with pytest.raises(UserError, match=r"losses\.tokens\.divergence=jsd cannot be estimated from tokens drawn"):
        bound(divergence="jsd")(*sides(draws(teacher), student, targets), progress=0.0)
    for answer in (top_k(teacher, 2.0), draws(teacher, 2.0)):
        with pytest.raises(UserError, match=r"losses\.tokens\.temperature is 1 and .* T = 2, .*temperature=2"):
            bound()(*sides(answer, student, targets), progress=0.0)
        assert bound(temperature=2)(*sides(answer, student, targets), progress=0.0).total.isfinite()
    with pytest.raises(UserError, match=r"student answers for 7 target tokens and the teacher for 6"):
        bound()(*sides(top_k(teacher)[:6], student, targets), progress=0.0)
    with pytest.raises(UserError, match=r"hold token 11, and 11 tokens are compared"):
        bound()(*sides(Draws(torch.full((P, 2), V)), student, targets), progress=0.0)


def test_models_of_different_vocabularies_are_refused_unless_told() -> None:
    with pytest.raises(
        UserError, match=r"student has 11 tokens and teacher 9\. If the first 9 .*losses\.tokens\.vocabulary=common"
    ):
        bound(spec("teacher", V - 2))
    with pytest.raises(
        UserError, match=r"tokenizers differ.*texts that the teacher wrote, with losses\.tokens\.alpha=0"
    ):
        bound(spec("teacher", digest="v2"))
    assert not bound(spec("teacher", digest="v2"), alpha=0.0).needs_teacher
    student, teacher, targets = case()
    for vocabulary in (V - 2, V + 2):
        table = torch.randn(vocabulary, 6, dtype=EXACT)
        losses = bound(spec("teacher", vocabulary), vocabulary="common", alpha=1.0)
        out = losses(*sides(FromStates(teacher.states, LmHead(table)), student, targets), progress=0.0)
        both = min(vocabulary, V)
        z = student.states @ student.head.weight.T + student.head.bias
        pair = [torch.softmax(each[:, :both], -1) for each in (teacher.states @ table.T, z)]
        p, q = pair
        torch.testing.assert_close(out.total, (p * (p / q).log()).sum() / P)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 1.5}, r"losses\.tokens\.alpha must be in \[0, 1\]; found 1\.5"),
        ({"alpha": Linear(0.5, -1.0)}, r"losses\.tokens\.alpha must be"),
        ({"temperature": 0}, r"losses\.tokens\.temperature must be above 0"),
        ({"jsd_beta": 1.0}, r"losses\.tokens\.jsd_beta must be in \(0, 1\)"),
        ({"skew": 0}, r"losses\.tokens\.skew must be in \(0, 1\)"),
        ({"divergence": "skew"}, r"losses\.tokens\.divergence='skew' is unknown"),
        ({"vocabulary": "cut"}, r"losses\.tokens\.vocabulary='cut' is unknown"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        bound(**options)


def test_a_head_of_other_kind_or_no_teacher_is_refused() -> None:
    classifier = ModelSpec("m", 2, D, 1, Head.of_labels("abc"))
    with pytest.raises(UserError, match=r"losses\.tokens \(TokensLoss\) needs a head of tokens; the head is 3 labels"):
        LossSet({"tokens": TokensLoss()}).bind(classifier, classifier)
    with pytest.raises(UserError, match=r"losses\.tokens \(TokensLoss\) learns from a teacher and there is none"):
        LossSet({"tokens": TokensLoss()}).bind(spec("student"), None)


@pytest.mark.parametrize(
    "made",
    [
        lambda: LmHead(torch.ones(3, 2), torch.ones(2)),
        lambda: LmHead(torch.ones(3, 2), soft_cap=0.0),
        lambda: FromStates(torch.ones(4, 3), LmHead(torch.ones(3, 2))),
        lambda: TopK(torch.ones(4, 2, dtype=torch.int64), torch.ones(4, 3), torch.ones(4)),
        lambda: TopK(torch.ones(4, 2), torch.ones(4, 2), torch.ones(4)),
        lambda: Draws(torch.ones(4, dtype=torch.int64)),
    ],
)
def test_answers_of_wrong_shapes_cannot_be_made(made: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"found|cannot be made"):
        made()


def test_a_teacher_without_an_answer_is_not_taken_for_no_teacher() -> None:
    student, _, targets = case()
    own, silent, batch = sides(student, student, targets)
    with pytest.raises(AssertionError):
        bound()(own, Outputs(None, silent.mask), batch, progress=0.0)
