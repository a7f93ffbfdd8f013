"""Losses where a model rules a class out, or nearly: 0 · log 0 is 0, value and gradient stay numbers."""

import math

import numpy as np
import pytest
import torch
from golden import DIVERGENCES, INF, outputs, spec
from scipy.special import log_softmax, rel_entr
from torch import Tensor

from mangakd.core.outputs import Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.output import OutputLoss


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


def test_of_one_output_only_mse_learns() -> None:
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
    several = ModelSpec("m", layers=1, hidden=2, heads=1, head=Head.of_labels("abc", several=True))
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
