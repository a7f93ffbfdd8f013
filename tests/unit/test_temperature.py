"""Temperatures that are no plain number: schedules of progress, by row, by class, and found from the teacher's entropy."""

import math

import pytest
import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs
from mangakd.core.schedule import Cosine, Linear
from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.loss_set import LossSet, LossSetOutput
from mangakd.losses.output import OutputLoss

TEACHER = torch.tensor([[3.0, 0.0, -1.0], [0.2, 0.1, 0.0], [-1.0, 2.0, 0.5]])
STUDENT = torch.tensor([[0.5, 0.4, -2.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def bound(several: bool = False, **options: object) -> LossSet:
    spec = ModelSpec("m", layers=1, hidden=2, heads=1, head=Head.of_labels("abc", several))
    losses = LossSet({"output": OutputLoss(**options)})  # type: ignore[arg-type]
    losses.bind(spec, spec)
    return losses


def answer(logits: Tensor) -> Outputs:
    return Outputs(logits, torch.ones(len(logits), 1))


def run(losses: LossSet, progress: float = 0.0, teacher: Tensor = TEACHER) -> LossSetOutput:
    return losses(answer(STUDENT), answer(teacher), {}, progress)


def by_hand(teacher: Tensor, temperatures: list[float]) -> float:
    """Mean over rows of T² · KL, float64."""
    total = 0.0
    for z, s, t in zip(teacher.double(), STUDENT.double(), temperatures, strict=True):
        p, q = torch.softmax(z / t, -1), torch.softmax(s / t, -1)
        total += t * t * (p * (p.log() - q.log())).sum().item()
    return total / len(teacher)


def entropy(logits: Tensor, t: float) -> float:
    """Mean over rows of H(softmax(logits / t)) / log C, float64."""
    p = torch.softmax(logits.double() / t, -1)
    return -(p * p.log()).sum(-1).mean().item() / math.log(logits.shape[-1])


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "progress", "t"), [(Linear(8.0, 4.0), 0.25, 7.0), (Cosine(8.0, 2.0), 0.5, 5.0), (Linear(8.0, 4.0), 1.0, 4.0)]
)  # fmt: skip
def test_t_and_t_squared_follow_the_schedule(schedule: object, progress: float, t: float) -> None:
    out = run(bound(temperature=schedule), progress)
    assert out.total.item() == pytest.approx(by_hand(TEACHER, [t] * 3), rel=1e-5)
    assert out.logs["output/temperature"].item() == pytest.approx(t)
    assert torch.equal(out.total, run(bound(temperature=t), progress).total), "a number is the same loss, bit for bit"


def test_one_number_throughout_is_not_logged() -> None:
    assert run(bound(temperature=4.0)).logs == {}


def test_a_schedule_is_a_function_of_progress_alone() -> None:
    losses = bound(temperature=Linear(8.0, 1.0))
    first = run(losses, 0.5).total
    run(losses, 0.9)
    assert torch.equal(run(losses, 0.5).total, first)


# --- by row and by class ---------------------------------------------------------------------------------------------


def test_a_sure_row_is_softened_more() -> None:
    sure = torch.softmax(TEACHER.double(), -1).amax(-1)
    temperatures = [1 + 3 * c for c in sure.tolist()]
    assert temperatures[0] > 3.6 and temperatures[1] < 2.2
    out = run(bound(temperature=4.0, temperature_by="sample"))
    assert out.total.item() == pytest.approx(by_hand(TEACHER, temperatures), rel=1e-5)
    assert out.logs["output/temperature"].item() == pytest.approx(sum(temperatures) / 3, rel=1e-5)


def test_a_schedule_may_be_by_row_too() -> None:
    one = run(bound(temperature=Linear(8.0, 4.0), temperature_by="sample"), 1.0).total
    assert torch.equal(one, run(bound(temperature=4.0, temperature_by="sample")).total)


def test_a_class_that_the_teacher_never_gives_has_the_mean_confidence() -> None:
    validation = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    sure = torch.softmax(validation.double(), -1).amax(-1).tolist()
    classes = [(sure[0] + sure[1]) / 2, sure[2], sum(sure) / 3]
    losses = bound(temperature=4.0, temperature_by="class")
    losses.calibrate(validation)
    for said in range(3):
        teacher = torch.full((3, 3), 0.0)
        teacher[:, said] = 1.5
        expected = by_hand(teacher, [1 + 3 * classes[said]] * 3)
        assert run(losses, teacher=teacher).total.item() == pytest.approx(expected, rel=1e-5)


# --- by the teacher's entropy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_teachers_mean_entropy_is_what_was_asked_for(share: float, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    validation = torch.randn(200, 3) * torch.rand(200, 1) * 5
    losses = bound(entropy=share)
    with caplog.at_level("INFO"):
        losses.calibrate(validation)
    assert "losses.output.temperature is not read" in caplog.text and "200 validation rows" in caplog.text
    t = run(losses).logs["output/temperature"].item()
    assert entropy(validation, t) == pytest.approx(share, abs=1e-5)
    assert run(losses).total.item() == pytest.approx(by_hand(TEACHER, [t] * 3), rel=1e-4)


def test_an_unsure_teacher_is_sharpened() -> None:
    torch.manual_seed(0)
    found = []
    for scale in (0.3, 6.0):
        losses = bound(entropy=0.6)
        losses.calibrate(torch.randn(200, 3) * scale)
        found.append(run(losses).logs["output/temperature"].item())
    assert found[0] < 1 < found[1]
    assert found[1] == pytest.approx(20 * found[0], rel=0.2)


def test_an_entropy_that_no_temperature_gives_is_refused() -> None:
    with pytest.raises(UserError, match=r"losses\.output\.entropy=0\.5 cannot be reached.*between 1\.000 and 1\.000"):
        bound(entropy=0.5).calibrate(torch.zeros(4, 3))
    with pytest.raises(UserError, match=r"set losses\.output\.temperature_by=batch"):  # no row's T is below 1 − c
        bound(entropy=0.5, temperature_by="sample").calibrate(TEACHER / 100)


# --- what is found before training -----------------------------------------------------------------------------------

FOUND = [{"entropy": 0.5}, {"temperature_by": "class"}]


@pytest.mark.parametrize("options", FOUND)
def test_without_calibration_the_run_stops(options: dict[str, object]) -> None:
    """DistillModule refuses a loss that is not finite."""
    assert run(bound(**options)).total.isnan()


@pytest.mark.parametrize("options", FOUND)
def test_a_resumed_run_reads_what_was_found(options: dict[str, object]) -> None:
    first, again = bound(**options), bound(**options)
    first.calibrate(TEACHER * 2)
    again.calibrate(TEACHER * 1.01)
    assert not torch.equal(run(again).total, run(first).total)
    again.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(run(again).total, run(first).total)


def test_nothing_is_kept_where_nothing_is_found() -> None:
    """Checkpoints of plain losses stay as they were."""
    losses = bound(temperature_by="sample")
    losses.calibrate(TEACHER)
    assert not losses.state_dict()


def test_mse_says_what_it_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    losses = bound(divergence="mse", entropy=0.5)
    losses.calibrate(torch.zeros(4, 3))
    assert "losses.output.temperature_by and entropy are ignored" in caplog.text
    assert run(losses).total.isfinite()
