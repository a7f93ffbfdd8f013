"""LossSet: weighting, normalising and naming in one place; and what `bind` refuses, in words that name the key."""

from collections.abc import Callable

import pytest
import torch

from mangakd.core.errors import UserError
from mangakd.core.outputs import AttentionTap, Outputs
from mangakd.core.requires import Need
from mangakd.core.schedule import Linear
from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback, LossOutput
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.losses.relation import RelationLoss


def spec(name: str = "m", **changes: object) -> ModelSpec:
    base = {"layers": 4, "hidden": 312, "heads": 12, "head": Head.of_labels("ab"), "vocabulary": "v1"}
    return ModelSpec(name, **{**base, **changes})


STUDENT, TEACHER = spec("tiny"), spec("big", layers=12, hidden=768)
LOGITS = Outputs(torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.5, 0.5]]), torch.ones(3, 4))
BATCH = {"labels": torch.tensor([0, 1, -100])}


class Constant(LossCallback):
    """sum / count of fixed numbers times a parameter of 1."""

    def __init__(self, total: float, count: int, **options: object) -> None:
        super().__init__(**options)
        self.total, self.count = total, count
        self.one = torch.nn.Parameter(torch.ones(()))

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        pass

    def forward(self, student: Outputs, teacher: Outputs | None, batch: object) -> LossOutput:
        return LossOutput(self.total * self.one, torch.tensor(self.count), {"seen": torch.tensor(1.0)})


def test_total_is_the_weighted_sum_of_means() -> None:
    losses = LossSet({"a": Constant(6.0, 3, weight=0.5), "b": Constant(5.0, 0, weight=Linear(0, 4)), "c": None})
    out = losses(LOGITS, None, BATCH, progress=0.5)
    assert out.total.item() == 0.5 * 2 + 2 * 5  # a count of 0 divides by 1
    assert {name: term.item() for name, term in out.terms.items()} == {"a": 2.0, "b": 5.0}
    assert out.weights == {"a": 0.5, "b": 2.0} and set(out.logs) == {"a/seen", "b/seen"}
    assert out.total.requires_grad and not any(term.requires_grad for term in out.terms.values())


def test_weight_zero_keeps_the_graph() -> None:
    """Skipping the term would leave its parameters without gradients, which DDP refuses."""
    losses = LossSet({"a": Constant(6.0, 3, weight=0.0)})
    losses(LOGITS, None, BATCH, 0.0).total.backward()
    assert losses.callbacks["a"].one.grad.item() == 0.0


def test_each_loss_is_scaled_by_its_own_unit() -> None:
    losses = LossSet({"hard": HardLabelLoss(), "soft": OutputLoss(divergence="mse")})
    losses.bind(STUDENT, TEACHER)
    plain = losses(LOGITS, LOGITS, BATCH, 0.0).terms
    scaled = losses(LOGITS, LOGITS, {**BATCH, "scale": {"labels": 0.25, "rows": 3.0}}, 0.0).terms
    assert scaled["hard"] == 0.25 * plain["hard"] and scaled["soft"] == 3.0 * plain["soft"]
    learned = Outputs(LOGITS.logits.clone().requires_grad_(), LOGITS.mask)
    losses(learned, LOGITS, {**BATCH, "scale": {"labels": 0.0, "rows": 0.0}}, 0.0).total.backward()
    assert not learned.logits.grad.any(), "a row that only keeps a rank company has no gradient, but a graph"


def test_names_requires_and_state_keys() -> None:
    losses = LossSet(
        {"hard": HardLabelLoss(), "hint": HiddenLoss(layer_map=[[4, 12]]), "att": AttentionLoss(layer_map="top")}
    )
    assert losses.needs_teacher, "known before bind: it decides whether a teacher is built"
    losses.bind(STUDENT, TEACHER)
    assert losses.requires.student == Need(True, frozenset({4}), frozenset({4})) and losses.requires.labels
    assert losses.requires.teacher == Need(False, frozenset({12}), frozenset({12}))
    assert set(losses.state_dict()) == {f"losses.hint.projections.4_to_12.{name}" for name in ("weight", "bias")}
    assert losses.callbacks["hint"].key("compare") == "losses.hint.compare"
    assert not LossSet({"hard": HardLabelLoss()}).needs_teacher


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ({}, "no losses"),
        ({"output": None}, "no losses"),
        ({"output": {"weight": 1}}, "losses.output is a dict"),
        ({"a.b": HardLabelLoss()}, "a.b"),
        ({"items": HardLabelLoss()}, "items"),
    ],
)
def test_no_loss_set(losses: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        LossSet(losses)


def test_bind_lists_every_problem() -> None:
    losses = LossSet(
        {"output": OutputLoss(temperature=0), "hidden": HiddenLoss(compare="mes"), "hard": HardLabelLoss(weight=-0.5)}
    )
    with pytest.raises(UserError) as error:
        losses.bind(STUDENT, TEACHER)
    message = str(error.value)
    assert message.count("\n- ") == 2 and message.startswith("- ")
    assert all(
        word in message for word in ("losses.output.temperature", "losses.hidden.compare", "losses.hard.weight", "mse")
    )


@pytest.mark.parametrize("loss", [OutputLoss, HiddenLoss, AttentionLoss, RelationLoss])
def test_no_teacher(loss: Callable[[], LossCallback]) -> None:
    with pytest.raises(UserError, match=r"losses.x .*learns from a teacher and there is none"):
        LossSet({"x": loss()}).bind(STUDENT, None)


@pytest.mark.parametrize("loss", [HiddenLoss, AttentionLoss, RelationLoss])
def test_token_aligned_losses_refuse_another_vocabulary(loss: Callable[[], LossCallback]) -> None:
    with pytest.raises(UserError, match="tokenizers differ: tiny has vocabulary v1, big has v2"):
        LossSet({"x": loss()}).bind(STUDENT, spec("big", vocabulary="v2"))
    LossSet({"x": loss()}).bind(STUDENT, spec("big", vocabulary=""))  # unknown is not different
    LossSet({"x": OutputLoss()}).bind(STUDENT, spec("big", vocabulary="v2"))


ODD = spec("odd", heads=5, hidden=320)
MULTI = Head.of_labels("ab", several=True)


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "words"),
    [
        (OutputLoss(divergence="foward_kl"), STUDENT, TEACHER, ("losses.x.divergence", "forward_kl")),
        (OutputLoss(temperature=-1), STUDENT, TEACHER, ("losses.x.temperature", "-1")),
        (
            OutputLoss(temperature=Linear(4, 0)),
            STUDENT,
            TEACHER,
            ("losses.x.temperature", "4.0 at the start and 0.0 at"),
        ),
        (
            OutputLoss(temperature={"start": 4}),
            STUDENT,
            TEACHER,
            ("losses.x.temperature=", "_target_: mangakd.core.sch"),
        ),
        (OutputLoss(temperature_by="smaple"), STUDENT, TEACHER, ("losses.x.temperature_by", "did you mean sample")),
        (OutputLoss(entropy=1.0), STUDENT, TEACHER, ("losses.x.entropy", "between 0 and 1", "1.0")),
        (OutputLoss(entropy="half"), STUDENT, TEACHER, ("losses.x.entropy", "half")),
        (HardLabelLoss(smoothing_aware="yes"), STUDENT, None, ("losses.x.smoothing_aware='yes'", "True, False")),
        (OutputLoss(jsd_beta=1.0), STUDENT, TEACHER, ("losses.x.jsd_beta", "1.0")),
        (OutputLoss(dkd_beta=-1.0), STUDENT, TEACHER, ("losses.x.dkd_alpha", "-1.0")),
        (
            OutputLoss(),
            STUDENT,
            spec("big", head=Head.of_labels("abc")),
            ("tiny has 2 labels (a, b)", "big has 3 labels (a, b, c)", "teacher="),
        ),
        (
            OutputLoss(),
            STUDENT,
            spec("big", head=MULTI),
            ("tiny has 2 labels (a, b) and", "2 labels (a, b), any number of them"),
        ),
        (OutputLoss(divergence="dkd"), spec(head=MULTI), spec(head=MULTI), ("losses.x.divergence=dkd", "forward_kl")),
        (HardLabelLoss(label_smoothing=1.0), STUDENT, None, ("losses.x.label_smoothing", "1.0")),
        (HardLabelLoss(weight="much"), STUDENT, None, ("losses.x.weight", "much")),
        (HiddenLoss(projection=False), STUDENT, TEACHER, ("losses.x.projection", "312", "768")),
        (HiddenLoss(projection="yes"), STUDENT, TEACHER, ("losses.x.projection", "yes")),
        (HiddenLoss(layer_norm=True), STUDENT, STUDENT, ("losses.x.layer_norm", "losses.x.projection=true")),
        (HiddenLoss(layer_map=[[4, 13]]), STUDENT, TEACHER, ("losses.x.layer_map", "(4, 13)", "0…4", "0…12")),
        (AttentionLoss(layer_map=[[0, 1]]), STUDENT, TEACHER, ("losses.x.layer_map", "1…4", "1…12")),
        (AttentionLoss(compare="xyz"), STUDENT, TEACHER, ("losses.x.compare='xyz' is unknown. Known: scores",)),
        (AttentionLoss(heads="max"), STUDENT, TEACHER, ("losses.x.heads", "group")),
        (AttentionLoss(), STUDENT, ODD, ("losses.x.heads=mean", "tiny has 12", "odd has 5")),
        (AttentionLoss(heads="group"), STUDENT, ODD, ("losses.x.heads=group", "tiny has 12", "odd has 5")),
        (
            RelationLoss(relation_heads=5),
            STUDENT,
            TEACHER,
            ("losses.x.relation_heads=5", "312", "768", "[1, 2, 3, 4, 6,"),
        ),
        (RelationLoss(), STUDENT, ODD, ("null takes the student's 12 heads", "[1, 2, 4, 8]")),
        (RelationLoss(relations=["keys"]), STUDENT, TEACHER, ("losses.x.relations", "did you mean key")),
        (RelationLoss(relations=[]), STUDENT, TEACHER, ("losses.x.relations", "at least one")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LossCallback) else "",
)
def test_bind_refuses(
    loss: LossCallback, student: ModelSpec, teacher: ModelSpec | None, words: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as error:
        LossSet({"x": loss}).bind(student, teacher)
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_forward_refuses_what_cannot_be_compared() -> None:
    eager = {4: AttentionTap(probs=torch.ones(3, 12, 4, 4) / 4), 12: AttentionTap(probs=torch.ones(3, 12, 4, 4) / 4)}
    sides = Outputs(LOGITS.logits, LOGITS.mask, attention=eager)
    for loss, words in (
        (AttentionLoss(layer_map="top"), r"losses.x.compare=scores .*teacher layer 12 .*compare=kl"),
        (RelationLoss(), r"losses.x needs query of teacher layer 12"),
    ):
        losses = LossSet({"x": loss})
        losses.bind(STUDENT, TEACHER)
        with pytest.raises(UserError, match=words):
            losses(sides, sides, BATCH, 0.0)
    hidden = LossSet({"x": HiddenLoss()})
    hidden.bind(STUDENT, TEACHER)
    with pytest.raises(UserError, match=r"\(3, 4\).*\(3, 5\)"):
        hidden(LOGITS, Outputs(LOGITS.logits, torch.ones(3, 5)), BATCH, 0.0)
    multi = LossSet({"x": HardLabelLoss()})
    multi.bind(spec(head=MULTI), None)
    with pytest.raises(UserError, match=r"multi_label .*\(3, 2\); found \(3,\)"):
        multi(LOGITS, None, BATCH, 0.0)


def test_each_part_of_the_total_keeps_its_graph() -> None:
    losses = LossSet({"a": Constant(6.0, 3, weight=0.5), "b": Constant(5.0, 1, weight=Linear(0, 4))})
    out = losses(LOGITS, None, BATCH, progress=0.5)
    assert {name: part.item() for name, part in out.weighted.items()} == {"a": 1.0, "b": 10.0}
    (gradient,) = torch.autograd.grad(out.weighted["b"], [losses.callbacks["b"].one])
    assert gradient.item() == 10.0


def test_smoothing_aware_without_smoothing_says_so(caplog: pytest.LogCaptureFixture) -> None:
    LossSet({"hard": HardLabelLoss(smoothing_aware=True)}).bind(STUDENT, None)
    assert "losses.hard.smoothing_aware is ignored: losses.hard.label_smoothing is 0" in caplog.text


def test_mse_says_that_the_temperature_plays_no_part(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        LossSet({"output": OutputLoss(divergence="mse", temperature=7)}).bind(STUDENT, STUDENT)
        assert "losses.output.temperature=7 plays no part" in caplog.text
        caplog.clear()
        LossSet({"output": OutputLoss(divergence="mse")}).bind(STUDENT, STUDENT)
    assert not caplog.text, "nobody has set it"


def test_a_schedule_is_plain_data_in_the_config() -> None:
    assert HardLabelLoss(weight=Linear(0.0, 1.0)).config == {
        "weight": {"_target_": "mangakd.core.schedule.Linear", "start": 0.0, "end": 1.0},
        "label_smoothing": 0.0,
        "smoothing_aware": False,
    }


def test_a_unit_that_the_loader_does_not_count_is_refused() -> None:
    """It was scaled by 1 under accumulation, without a word."""
    loss = Constant(1.0, 1)
    loss.unit = "words"
    with pytest.raises(
        UserError, match=r"losses\.a \(Constant\) counts in 'words'.*rows, sequences, tokens, cells, labels"
    ):
        LossSet({"a": loss}).bind(STUDENT, None)


SCORE, VECTOR, ONE = Head("score", 1), Head("vector", 64), Head.of_labels("a")
OF_CLASSES = [HardLabelLoss(), *(OutputLoss(divergence=each) for each in ("forward_kl", "reverse_kl", "jsd", "dkd"))]


@pytest.mark.parametrize("loss", OF_CLASSES)
def test_a_loss_of_classes_refuses_other_heads(loss: LossCallback) -> None:
    """On one output the loss and its gradient were 0."""
    name = type(loss).__name__
    for head, words in (
        (SCORE, rf"losses\.a \({name}\) needs a head of labels; the head is a score \(m\)\. .*eave losses\.a out"),
        (VECTOR, rf"losses\.a \({name}\) needs a head of labels; the head is 64 dimensions \(m\)\."),
        (ONE, r"one output, whose probability is always 1 \(m\)"),
    ):
        with pytest.raises(UserError, match=words):
            LossSet({"a": loss}).bind(spec(head=head), spec(head=head))
    LossSet({"a": OutputLoss(divergence="mse")}).bind(spec(head=ONE), spec(head=ONE))


def test_the_output_loss_names_its_form_for_scores() -> None:
    with pytest.raises(UserError, match=r"Set losses\.a\.divergence=mse, which compares scores"):
        LossSet({"a": OutputLoss()}).bind(spec(head=SCORE), spec(head=SCORE))
    with pytest.raises(UserError, match=r"needs a head of labels or score; the head is 64 dimensions"):
        LossSet({"a": OutputLoss(divergence="mse")}).bind(spec(head=VECTOR), spec(head=VECTOR))


def test_mse_of_scores_by_hand() -> None:
    """((1 − 3)² + (0.5 − 0)² + (−2 − −1)²) / 3 = 1.75, whose gradient is 2 (s − t) / 3."""
    losses = LossSet({"output": OutputLoss(divergence="mse", temperature=7)})
    losses.bind(spec(head=SCORE), spec(head=SCORE))
    student = torch.tensor([[1.0], [0.5], [-2.0]], requires_grad=True)
    teacher = Outputs(torch.tensor([[3.0], [0.0], [-1.0]]), LOGITS.mask)
    total = losses(Outputs(student, LOGITS.mask), teacher, {}, 0.0).total
    total.backward()
    assert total.item() == 1.75 and torch.allclose(student.grad, torch.tensor([[-4.0], [1.0], [-2.0]]) / 3)


@pytest.mark.parametrize("loss", [HiddenLoss(layer_map="last"), AttentionLoss(), RelationLoss()])
@pytest.mark.parametrize("head", [SCORE, VECTOR, Head("tokens", 100)], ids=str)
def test_losses_of_layers_fit_every_head(loss: LossCallback, head: Head) -> None:
    LossSet({"a": loss}).bind(spec(head=head), spec(head=head))
