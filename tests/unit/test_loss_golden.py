"""Losses against numbers worked out by hand, and the traps other projects fell into (wrong reduction, lost T², …)."""

import math

import pytest
import torch
from golden import DIVERGENCES, HAND, LN3, mean, outputs, spec

from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.output import OutputLoss

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
