"""Losses against numbers worked out by hand, and the traps other projects fell into (wrong reduction, lost T², …)."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr
from torch import Tensor

from mangakd.core.outputs import AttentionTap, Outputs
from mangakd.core.spec import ModelSpec
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.output import OutputLoss
from mangakd.losses.relation import RelationLoss

LN3, INF = math.log(3), math.inf
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "dkd", "mse")


def spec(classes: int = 2, **sizes: int) -> ModelSpec:
    sizes = {"layers": 1, "hidden": 2, "heads": 1, **sizes}
    return ModelSpec("m", labels=tuple(map(str, range(classes))), **sizes)


def outputs(logits: list | Tensor, mask: list | None = None, **taps: object) -> Outputs:
    return Outputs(torch.as_tensor(logits, dtype=torch.float32), torch.tensor(mask or [[1]]), **taps)


def mean(loss: LossCallback, student: Outputs, teacher: Outputs | None, labels: list | None = None) -> float:
    loss.bind(spec(student.logits.shape[1]), spec(student.logits.shape[1]))
    output = loss(student, teacher, {"labels": torch.tensor(labels)} if labels else {})
    return (output.sum / output.count).item()


# --- temperature -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "top"), [(1, 0.918389), (2, 0.623159), (4, 0.330745), (8, 0.195746), (20, 0.133004)])
def test_temperature_softens_the_top_class(t: float, top: float) -> None:
    logits = [[5.2, 2.1, 1.8, 0.3, -1.5, -2, -2.4, -3.1, -3.5, -4]]
    assert outputs(logits).log_probs(t).exp()[0, 0].item() == pytest.approx(top, abs=1e-6)


def test_soft_targets_at_t3_and_their_kl_from_uniform() -> None:
    teacher = outputs([[6.4, 1.2, -1.5, *[-2.0] * 7]])
    expected = torch.tensor([0.597299, 0.105539, 0.042909])
    torch.testing.assert_close(teacher.log_probs(3).exp()[0, :3], expected, rtol=0, atol=1e-6)
    found = mean(OutputLoss(temperature=3), outputs(torch.zeros(1, 10)), teacher)
    assert found == pytest.approx(9 * 0.7794115, rel=1e-5)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "dkd"])
def test_t_squared_keeps_the_gradient_size(divergence: str) -> None:
    """Hinton et al.: in the limit of high T the gradient of T² · KL does not depend on T; without T² it would fall
    hundredfold between T = 20 and T = 200."""
    sizes = []
    for t in (20.0, 200.0):
        student = torch.tensor([[1.0, -1.0, 0.5]], requires_grad=True)
        loss = OutputLoss(temperature=t, divergence=divergence)
        loss.bind(spec(3), spec(3))
        loss(outputs(student), outputs([[0.0, 2.0, 1.0]]), {"labels": torch.tensor([1])}).sum.backward()
        sizes.append(student.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


# --- divergences by hand: teacher (0.75, 0.25), student (0.5, 0.5) ---------------------------------------------------

HAND = {
    "forward_kl": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),
    "reverse_kl": 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25),
    "jsd": 0.5 * (0.75 * math.log(1.2) + 0.25 * math.log(2 / 3)) + 0.5 * (0.5 * math.log(0.8) + 0.5 * math.log(4 / 3)),
    "dkd": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),  # two classes: no second non-target class, so plain KL is left
    "mse": LN3**2 / 2,
}


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("size", [1, 5])
def test_divergence_by_hand_is_a_mean_over_the_batch(divergence: str, size: int) -> None:
    """The mean must not depend on the batch size, nor be divided by the class count (torch's `mean` reduction)."""
    loss = OutputLoss(temperature=1, divergence=divergence)
    found = mean(loss, outputs([[0.0, 0.0]] * size), outputs([[LN3, 0.0]] * size), [0] * size)
    assert found == pytest.approx(HAND[divergence], rel=1e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_equal_models_have_no_loss_and_others_a_positive_one(divergence: str) -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(4, 6), torch.randn(4, 6)
    same = mean(OutputLoss(divergence=divergence), outputs(teacher), outputs(teacher), [0, 1, 2, 3])
    other = mean(OutputLoss(divergence=divergence), outputs(student), outputs(teacher), [0, 1, 2, 3])
    assert same == pytest.approx(0, abs=1e-5) and other > 0.01


def test_dkd_with_the_teachers_doubt_as_beta_is_kl() -> None:
    """KL = target part + (1 − p_target) · non-target part (Zhao et al. 2022, eq. 7)."""
    teacher, student = outputs([[1.0, 0.5, -1.0, 0.2]]), outputs([[0.3, -0.4, 0.8, 0.0]])
    doubt = 1 - teacher.log_probs(2).exp()[0, 1].item()
    dkd = OutputLoss(temperature=2, divergence="dkd", dkd_alpha=1, dkd_beta=doubt)
    assert mean(dkd, student, teacher, [1]) == pytest.approx(
        mean(OutputLoss(temperature=2), student, teacher), rel=1e-5
    )


def test_an_ensemble_is_a_mixture_at_the_temperature_and_not_a_mean_of_logits() -> None:
    members = torch.tensor([[[4.0, 0.0, 0.0]], [[0.0, 8.0, 0.0]]])
    weights = torch.tensor([0.25, 0.75])
    teacher = outputs((members * weights[:, None, None]).sum(0), members=members, weights=weights)
    p = 0.25 * (members[0] / 2).softmax(-1) + 0.75 * (members[1] / 2).softmax(-1)
    expected = 4 * (p * (p * 3).log()).sum().item()
    student = outputs(torch.zeros(1, 3))
    assert mean(OutputLoss(temperature=2), student, teacher) == pytest.approx(expected, rel=1e-5)
    assert mean(OutputLoss(temperature=2), student, outputs(teacher.logits)) != pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_class_both_rule_out_adds_nothing(divergence: str) -> None:
    """0 · (−inf + inf) is NaN; padded classes at -inf must leave value and gradient as if they were not there."""
    results = []
    for extra in ([], [float("-inf")]):
        student = torch.tensor([[0.5, -1.0, 0.1, *extra]], requires_grad=True)
        loss = OutputLoss(temperature=2, divergence=divergence)
        loss.bind(spec(3 + len(extra)), spec(3 + len(extra)))
        teacher = outputs([[1.0, 0.0, -1.0, *extra]])
        with torch.autograd.set_detect_anomaly(True):
            total = loss(outputs(student), teacher, {"labels": torch.tensor([2])}).sum
            total.backward()
        scale = student.shape[1] if divergence == "mse" else 1  # the only one that is a mean over classes
        results.append((total.detach() * scale, student.grad[:, :3] * scale, student.grad[:, 3:]))
    torch.testing.assert_close(results[1][:2], results[0][:2])
    assert not results[1][2].any()


def value_and_gradient(
    divergence: str, student: list | Tensor, teacher: list | Tensor, label: int = 0, t: float = 1.0, **options: float
) -> tuple[float, list[float]]:
    logits = torch.as_tensor(student)[None].requires_grad_()
    loss = OutputLoss(temperature=t, divergence=divergence, **options)
    loss.bind(spec(logits.shape[1]), spec(logits.shape[1]))
    given = Outputs(logits, torch.ones(1, 1)), Outputs(torch.as_tensor(teacher)[None], torch.ones(1, 1))
    total = loss(*given, {"labels": torch.tensor([label])}).sum
    total.backward()
    return total.item(), logits.grad[0].float().tolist()


def in_float64(divergence: str, student: list[float], teacher: list[float], t: float) -> float:
    """T² · divergence with 0 · log 0 = 0, by SciPy. mse: a mean over classes."""
    log_p, log_q = (log_softmax(np.array(z) / t) for z in (teacher, student))
    p, q = np.exp(log_p), np.exp(log_q)
    with np.errstate(invalid="ignore"):
        cells = {
            "forward_kl": np.where(p > 0, p * (log_p - log_q), 0),
            "reverse_kl": np.where(q > 0, q * (log_q - log_p), 0),
            "jsd": (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)) / 2,
        }[divergence]
    return t * t * float(cells.sum())


RULED_OUT = {  # (student, teacher): logits of -inf, and so far apart that probabilities are 0 in fp32
    "by both": ([0.5, -1.0, -INF], [1.0, 0.0, -INF]),
    "by the teacher": ([0.5, -1.0, 0.3], [1.0, 0.0, -INF]),
    "all but one by both": ([2.0, -INF, -INF], [-1.0, -INF, -INF]),
    "all but one by the teacher": ([0.2, 0.1, 0.3], [1.0, -INF, -INF]),
    "by the student, and nearly by the teacher": ([0.5, -1.0, -INF], [1.0, 0.0, -1e6]),
    "nearly": ([1e4, -1e4, 0.0], [-1e4, 0.0, 1e4]),
    "nearly, by both alike": ([1e4, -1e4, 5.0], [1e4, -1e4, -5.0]),
}


@pytest.mark.parametrize("t", [1.0, 2.0, 20.0])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("case", RULED_OUT)
def test_classes_that_are_ruled_out(case: str, divergence: str, t: float) -> None:
    student, teacher = RULED_OUT[case]
    expected = in_float64(divergence, student, teacher, t)
    found, gradient = value_and_gradient(divergence, student, teacher, t=t)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6 * t * t)
    # Reverse KL is infinite where the teacher alone rules a class out, and forward KL where the student alone does.
    assert math.isinf(expected) or all(map(math.isfinite, gradient))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_extreme_logits_in_half_precision_are_computed_in_fp32(divergence: str, dtype: torch.dtype) -> None:
    """±10,000 is near fp16's end; its squares and exponentials are far beyond."""
    student, teacher = (torch.tensor(z, dtype=dtype) for z in ([1e4, -1e4, 3.0, 0.0], [-1e4, 1e4, 3.5, 1.0]))
    exact = value_and_gradient(divergence, student.float(), teacher.float(), label=1)
    found = value_and_gradient(divergence, student, teacher, label=1)
    assert math.isfinite(found[0]) and found[0] == exact[0]
    assert all(map(math.isfinite, found[1])) and found[1] == pytest.approx(exact[1], rel=1e-2)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_a_single_class_has_nothing_to_learn(divergence: str) -> None:
    assert value_and_gradient(divergence, [3.0], [-1.0]) == (0, [0])
    assert value_and_gradient("mse", [3.0], [-1.0]) == (16, [8])


@pytest.mark.parametrize("beta", [0.0, 8.0])
def test_dkd_where_the_teacher_rules_out_all_but_the_label(beta: float) -> None:
    """The target part is −log q_label, whose gradient is q − onehot; about the other classes the teacher says nothing."""
    student = [0.2, -0.4, 1.0]
    q = torch.tensor(student).softmax(-1)
    options = {"dkd_alpha": 0.5, "dkd_beta": beta}
    found, gradient = value_and_gradient("dkd", student, [-INF, 3.0, -INF], label=1, **options)
    assert found == pytest.approx(-0.5 * math.log(q[1]), rel=1e-6)
    assert gradient == pytest.approx((0.5 * (q - torch.tensor([0.0, 1.0, 0.0]))).tolist(), rel=1e-5)
    # As a limit: nearly ruled out, by equal logits, and a student of equal logits there.
    near = value_and_gradient("dkd", [0.2, -0.4, 0.2], [-1e4, 3.0, -1e4], label=1, **options)
    assert value_and_gradient("dkd", [0.2, -0.4, 0.2], [-INF, 3.0, -INF], label=1, **options)[0] == pytest.approx(
        near[0]
    )


def test_dkd_with_classes_that_are_ruled_out() -> None:
    """What both rule out is left out, also as the label. Where the student alone rules out it is infinite, and not NaN."""
    assert value_and_gradient("dkd", [2.0, -INF, -INF], [1.0, -INF, -INF]) == (0, [0, 0, 0])
    plain = value_and_gradient("dkd", [0.5, -1.0, 0.1], [1.0, 0.0, -1.0])
    padded = value_and_gradient("dkd", [0.5, -1.0, 0.1, -INF], [1.0, 0.0, -1.0, -INF])
    assert padded[0] == pytest.approx(plain[0]) and padded[1] == pytest.approx([*plain[1], 0])
    label_out = value_and_gradient("dkd", [-INF, 0.5, -1.0], [-INF, 1.0, 0.0], dkd_beta=1.0)
    forward = value_and_gradient("forward_kl", [0.5, -1.0], [1.0, 0.0])
    assert label_out[0] == pytest.approx(forward[0]) and label_out[1] == pytest.approx([0, *forward[1]])
    assert value_and_gradient("dkd", [2.0, -INF, -INF], [1.0, 0.0, 0.0])[0] == INF


def test_what_is_ruled_out_in_a_row_without_a_label_does_not_reach_dkd() -> None:
    student = torch.tensor([[1.0, 0.0, 0.5], [2.0, -INF, -INF]], requires_grad=True)
    loss = OutputLoss(divergence="dkd")
    loss.bind(spec(3), spec(3))
    with torch.autograd.set_detect_anomaly(True):
        output = loss(
            outputs(student), outputs([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0]]), {"labels": torch.tensor([1, -100])}
        )
        output.sum.backward()
    assert output.sum.isfinite() and student.grad.isfinite().all()
    assert student.grad[0].all() and not student.grad[1].any()


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "mse"])
def test_labels_that_both_rule_out_or_are_sure_of_add_nothing(divergence: str) -> None:
    """Several labels: logits of ±inf are probabilities of 0 and 1."""
    several = ModelSpec("m", layers=1, hidden=2, heads=1, labels=("a", "b", "c"), problem="multi_label")
    found = []
    for extra in ([], [-INF, INF]):
        student = torch.tensor([[0.5, *extra]], requires_grad=True)
        loss = OutputLoss(divergence=divergence)
        loss.bind(several, several)
        total = loss(outputs(student), outputs([[1.0, *extra]]), {}).sum
        total.backward()
        found.append((total.item(), student.grad[0, 0].item()))
        assert not student.grad[0, 1:].any()
    assert found[1] == pytest.approx(found[0])


def test_soft_targets_count_unlabelled_examples_and_dkd_does_not() -> None:
    for divergence, count in (("forward_kl", 2), ("dkd", 1)):
        loss = OutputLoss(divergence=divergence)
        loss.bind(spec(2), spec(2))
        batch = {"labels": torch.tensor([1, -100])}
        assert loss(outputs([[0.0, 1.0]] * 2), outputs([[1.0, 0.0]] * 2), batch).count == count


# --- hard labels -----------------------------------------------------------------------------------------------------


def test_hard_labels_by_hand() -> None:
    student = outputs(
        [[0.0, LN3], [0.0, LN3], [9.0, 9.0]]
    )  # probabilities (0.25, 0.75), twice; the third is unlabelled
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert mean(HardLabelLoss(), student, None, [1, 0, -100]) == pytest.approx(expected, rel=1e-6)
    smooth = HardLabelLoss(label_smoothing=0.2)
    assert mean(smooth, outputs([[0.0, LN3]]), None, [1]) == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25))


def test_smoothing_aware_labels_keep_their_whole_weight() -> None:
    """Probabilities (0.25, 0.75), label 1, ε = 0.2: plain 0.9 and 0.1 of the two logs, of which the label's own is 0.8."""
    student = outputs([[0.0, LN3]])
    aware = HardLabelLoss(label_smoothing=0.2, smoothing_aware=True)
    own, even = -math.log(0.75), -(math.log(0.75) + math.log(0.25)) / 2
    assert mean(aware, student, None, [1]) == pytest.approx(own + 0.25 * even, rel=1e-6)


# --- token-aligned ---------------------------------------------------------------------------------------------------


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
