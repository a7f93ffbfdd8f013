"""Ranking losses: numbers worked out by hand, and what may be done to a query's documents without changing the loss."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.base import LossOutput
from mangakd.losses.binary import BinaryLoss
from mangakd.losses.groups import GroupLoss
from mangakd.losses.list_net import ListNetLoss
from mangakd.losses.listwise_kl import ListwiseKLLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.margin_hinge import MarginHingeLoss
from mangakd.losses.margin_mse import MarginMSELoss
from mangakd.losses.rank_net import RankNetLoss
from mangakd.losses.score_mse import ScoreMSELoss

NAN = math.nan
MODEL = ModelSpec("model", layers=1, hidden=4, heads=1, head=Head("score", 1))
Lists = list[list[float]]
ALL: dict[str, Callable[[], GroupLoss]] = {
    "margin_mse": MarginMSELoss, "margin_mse graded": lambda: MarginMSELoss(pairs="graded"),
    "margin_hinge": lambda: MarginHingeLoss(margin=0.2), "margin_hinge graded": lambda: MarginHingeLoss(pairs="graded"),
    "listwise_kl": lambda: ListwiseKLLoss(temperature=2.0), "list_net": ListNetLoss, "rank_net": RankNetLoss,
    "score_mse": ScoreMSELoss, "binary": BinaryLoss,
}  # fmt: skip
POINTWISE = {"score_mse", "binary"}
each_loss = pytest.mark.parametrize("name", ALL)


def table(lists: Lists, width: int) -> Tensor:
    return torch.tensor([[*one, *[NAN] * (width - len(one))] for one in lists])


def calculate(loss: GroupLoss, student: Lists, teacher: Lists, grades: Lists, width: int = 0) -> LossOutput:
    loss.bind(MODEL, MODEL)
    sides = [torch.tensor([score for one in lists for score in one])[:, None] for lists in (student, teacher)]
    sizes = [len(one) for one in student]
    batch = {
        "first": torch.tensor([0, *np.cumsum(sizes)]),
        "grades": table(grades, max(width, *sizes)),
    }
    return loss(*(Outputs(side.requires_grad_(), torch.ones(len(side), 1)) for side in sides), batch)


def value(*arguments: object, **more: int) -> float:
    output = calculate(*arguments, **more)  # type: ignore[arg-type]
    return (output.sum / output.count.clamp(min=1)).item()


# --- by hand ---------------------------------------------------------------------------------------------------------

S, T, G = [1.0, 0.0, 3.0], [4.0, 1.0, 0.0], [2.0, 0.0, 0.0]  # differences of s: 1, −2, −3; of t: 3, 4, 1


def shares(scores: list[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


HAND = {
    "margin_mse": ((1 - 3) ** 2 + (-2 - 4) ** 2 + (-3 - 1) ** 2) / 3,
    "margin_mse graded": ((1 - 3) ** 2 + (-2 - 4) ** 2) / 2,
    "margin_hinge": (2.2 + 6.2 + 4.2) / 3,
    "margin_hinge graded": (2 + 6) / 2,
    "listwise_kl": 4 * divergence(shares([2, 0.5, 0]), shares([0.5, 0, 1.5])),
    "list_net": divergence(shares(G), shares(S)),
    "rank_net": (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2,
    "score_mse": (9 + 1 + 9) / 3,
    "binary": (math.log(1 + math.exp(-1)) + math.log(2) + math.log(1 + math.exp(3))) / 3,
}


@each_loss
def test_one_query_by_hand(name: str) -> None:
    assert value(ALL[name](), [S], [T], [G]) == pytest.approx(HAND[name], rel=1e-6)


@each_loss
def test_queries_weigh_alike_however_many_documents_they_have(name: str) -> None:
    long = [S * 4, T * 4, G * 4]
    apart = [value(ALL[name](), [one[0]], [one[1]], [one[2]]) for one in (long, [S, T, G])]
    both = value(ALL[name](), [long[0], S], [long[1], T], [long[2], G])
    assert both == pytest.approx(np.mean(apart), rel=1e-5)


def test_sharp_grades_give_the_best_document_most_of_the_vote() -> None:
    grades = [1.0] + [0.0] * 9
    for sharpness, share in ((1.0, 0.232), (5.0, 0.943)):
        best = [math.log(share), *[math.log((1 - share) / 9)] * 9]
        assert value(ListNetLoss(sharpness=sharpness), [best], [best], [grades]) == pytest.approx(0, abs=1e-4)


def test_t_squared_keeps_the_size_of_the_gradient() -> None:
    sizes = []
    for t in (20.0, 200.0):
        loss, student = ListwiseKLLoss(temperature=t), torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
        loss.bind(MODEL, MODEL)
        batch = {"first": torch.tensor([0, 3])}
        loss(
            Outputs(student, torch.ones(3, 1)), Outputs(torch.tensor([[0.0], [2.0], [1.0]]), torch.ones(3, 1)), batch
        ).sum.backward()
        sizes.append(student.grad.norm().item())  # type: ignore[union-attr]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


# --- what changes nothing --------------------------------------------------------------------------------------------

LISTS = ([S, [0.5], [2.0, -1.0, 0.3, 0.1]], [T, [2.5], [-2.0, 1.0, 3.0, 0.0]], [G, [1.0], [0.0, 1.0, 2.0, 1.0]])


@each_loss
def test_order_of_documents_and_of_queries(name: str) -> None:
    turned = [[one[::-1] for one in lists[::-1]] for lists in LISTS]
    assert value(ALL[name](), *turned) == pytest.approx(value(ALL[name](), *LISTS), rel=1e-6)


@each_loss
def test_padding_to_a_longer_list(name: str) -> None:
    one, two = (calculate(ALL[name](), *LISTS, width=width) for width in (4, 9))
    assert two.count == one.count and two.sum.item() == pytest.approx(one.sum.item(), rel=1e-6)


@each_loss
@pytest.mark.parametrize("side", [0, 1])
def test_an_offset_of_a_query(name: str, side: int) -> None:
    """Pointwise losses alone see it."""
    lists = list(LISTS)
    lists[side] = [[score + 5 * number for score in one] for number, one in enumerate(lists[side])]
    plain, moved = value(ALL[name](), *LISTS), value(ALL[name](), *lists)
    sees = name == "score_mse" or (name == "binary" and side == 0)
    assert (moved != pytest.approx(plain, rel=1e-4)) == sees


@each_loss
def test_queries_without_grades_teach_a_loss_on_grades_nothing(name: str) -> None:
    lists = [[*LISTS[0], [1.0, 2.0]], [*LISTS[1], [2.0, 0.0]]]
    more = calculate(ALL[name](), *lists, [*LISTS[2], [NAN, NAN]])
    plain = calculate(ALL[name](), *LISTS)
    reads = name in ("list_net", "rank_net", "binary") or "graded" in name
    assert (more.count == plain.count) == reads and (more.sum.item() == pytest.approx(plain.sum.item())) == reads


@each_loss
@pytest.mark.parametrize("grades", [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]], ids=["no relevant one", "all alike"])
def test_grades_that_are_all_equal(name: str, grades: list[float]) -> None:
    output = calculate(ALL[name](), [S], [T], [grades])
    if name in ("list_net", "rank_net") or "graded" in name:
        assert output.count == 0 and output.sum == 0
        output.sum.backward()
    else:
        assert output.count == 1 and output.sum.isfinite()


@each_loss
def test_one_document(name: str) -> None:
    output = calculate(ALL[name](), [[3.0]], [[1.0]], [[1.0]])
    assert output.count == (name in POINTWISE)
    assert output.sum.item() == pytest.approx({"score_mse": 4.0, "binary": math.log(1 + math.exp(-3))}.get(name, 0.0))


@each_loss
def test_scores_that_are_all_tied_have_a_finite_gradient(name: str) -> None:
    loss = ALL[name]()
    loss.bind(MODEL, MODEL)
    tied = torch.zeros(3, 1, requires_grad=True)
    batch = {"first": torch.tensor([0, 3]), "grades": torch.tensor([G])}
    loss(Outputs(tied, torch.ones(3, 1)), Outputs(torch.zeros(3, 1), torch.ones(3, 1)), batch).sum.backward()
    assert tied.grad is not None and tied.grad.isfinite().all()


@each_loss
def test_a_student_like_its_teacher_and_its_grades(name: str) -> None:
    if name not in ("rank_net", "binary"):
        perfect = G if name == "list_net" else T
        loss = MarginHingeLoss() if name == "margin_hinge" else ALL[name]()
        assert value(loss, [perfect], [T], [G]) == pytest.approx(0, abs=1e-6)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["margin_mse", "margin_hinge", "listwise_kl"])
def test_teacher_scores_that_went_through_a_sigmoid(name: str) -> None:
    raw = torch.tensor([[3.0, -4.0, -torch.inf], [0.5, 0.25, 2.0]])
    losses = LossSet({name: ALL[name]()})
    losses.bind(MODEL, MODEL)
    losses.calibrate(raw)
    losses.calibrate(0.2 + raw.sigmoid() / 3)  # a weak teacher
    with pytest.raises(
        UserError, match=rf"losses\.{name} .*all 5 scores.*\[0, 1\] \(0\.01799 … 0\.9526\).*log\(p / \(1 − p\)\)"
    ):
        losses.calibrate(raw.sigmoid().masked_fill(raw.isinf(), -torch.inf))


def test_a_sure_teacher_s_sigmoid_is_exactly_one_in_fp32() -> None:
    losses = LossSet({"margin_mse": MarginMSELoss()})
    losses.bind(MODEL, MODEL)
    with pytest.raises(UserError, match=r"\(0 … 1\): they went through a sigmoid"):
        losses.calibrate(torch.tensor([[200.0, -200.0]]).sigmoid())
    losses.calibrate(torch.tensor([[0.0, 1.001]]))  # no sigmoid gives more than 1


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (MarginMSELoss(pairs="al"), r"losses\.loss\.pairs='al' is unknown; did you mean all"),
        (MarginHingeLoss(margin=-1), r"losses\.loss\.margin must be a number of at least 0; found -1"),
        (ListwiseKLLoss(temperature=0), r"losses\.loss\.temperature must be above 0; found 0"),
        (ListNetLoss(sharpness=0), r"losses\.loss\.sharpness must be a number above 0; found 0"),
        (BinaryLoss(relevant=NAN), r"losses\.loss\.relevant must be a number; found nan"),
    ],
)
def test_options(loss: GroupLoss, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LossSet({"loss": loss}).bind(MODEL, MODEL)


def test_heads() -> None:
    labels, two = Head.of_labels(("a", "b")), Head("score", 2)
    for head, message in (
        (labels, "needs a head of score; the head is 2 labels"),
        (two, "ranks by one score, but model has 2 scores"),
    ):
        other = ModelSpec("model", layers=1, hidden=4, heads=1, head=head)
        with pytest.raises(UserError, match=message):
            LossSet({"loss": RankNetLoss()}).bind(other, None)


def test_a_batch_that_does_not_say_whose_the_documents_are() -> None:
    loss = RankNetLoss()
    loss.bind(MODEL, None)
    with pytest.raises(UserError, match="needs `first`"):
        loss(Outputs(torch.zeros(3, 1), torch.ones(3, 1)), None, {"grades": torch.zeros(3, 1)})
