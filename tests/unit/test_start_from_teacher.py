"""A student of sizes that starts from its teacher: fits by hand, models of each family, what is refused."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from contract.tiny_models import HEAD, VOCAB, config, encoder, tokenizer
from torch import nn

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models.encoder import Encoder
from mangakd.models.outline import weights_digest
from mangakd.students import least_squares
from mangakd.students.build import Student
from mangakd.students.checks import check_start
from mangakd.students.least_squares import _factors, _fit, start_from

BERT = {
    "model_type": "bert",
    "num_hidden_layers": 2,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "intermediate_size": 20,
}
DISTILBERT = {"model_type": "distilbert", "n_layers": 2, "dim": 12, "n_heads": 2, "hidden_dim": 20}
ROBERTA = {**BERT, "model_type": "roberta", "max_position_embeddings": 40}


def batches(rows: int = 120, width: int = 9, more: int = 0, junk: int = 0) -> list[dict[str, torch.Tensor]]:
    """Random tokens; rows of 3 to `width`. more: further padding; junk: what stands in it."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(4):
        lengths = draw.integers(3, width + 1, rows)
        mask = torch.from_numpy(np.arange(width + more) < lengths[:, None]).long()
        ids = torch.full((rows, width + more), junk)
        ids[:, :width] = torch.from_numpy(draw.integers(5, VOCAB, (rows, width)))
        made.append({"input_ids": ids.where(mask.bool(), torch.tensor(junk)), "attention_mask": mask})
    return made


def taught(kind: str, head: Head = HEAD) -> Encoder:
    """A teacher whose norms have gains and offsets, as trained ones have."""
    torch.manual_seed(1)
    teacher = encoder(config(kind), head=head) if head is not HEAD else encoder(config(kind))
    for module in teacher.model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, 0.0, 0.1)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.2)
    return teacher


def logits(model: Encoder, texts: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model.eval()(each).logits for each in texts])


def explained(student: torch.Tensor, teacher: torch.Tensor) -> float:
    return 1 - ((student - teacher).square().sum() / (teacher - teacher.mean(0)).square().sum()).item()


def test_factors_are_the_best_of_their_rank() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(4, 6)), rng.normal(size=(4, 5))
    u, s, v = np.linalg.svd(left.T @ right)
    best = (u[:, :2] * s[:2]) @ v[:2]
    a, b = _factors(torch.from_numpy(left), torch.from_numpy(right), 2)
    assert np.allclose((a.T @ b).numpy(), best, atol=1e-12) and a.shape == (2, 6) and b.shape == (2, 5)
    a, b = _factors(torch.from_numpy(left), torch.from_numpy(right), 9)
    assert np.allclose((a.T @ b).numpy(), left.T @ right, atol=1e-12) and len(a) == 4


def test_a_fit_is_ridge_regression_with_a_free_bias() -> None:
    """One feature −1, 0, 1 and target 1, 4, 7: slope 6 / (2 + 0.01 × 2), bias 4."""
    linear = nn.Linear(1, 1)
    with torch.no_grad():
        _fit(linear, torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[1.0], [4.0], [7.0]]))
    assert linear.weight.item() == pytest.approx(6 / 2.02, rel=1e-6) and linear.bias.item() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("bert", BERT), ("bert", DISTILBERT), ("distilbert", BERT), ("distilbert", DISTILBERT), ("roberta", ROBERTA)],
)
def test_a_narrow_student_answers_as_its_teacher(kind: str, sizes: dict[str, Any]) -> None:
    teacher, texts = taught(kind), batches()
    torch.manual_seed(0)
    random = Student(sizes=sizes).build(teacher, tokenizer(), HEAD)
    fitted = Student(sizes=sizes, start="teacher").build(teacher, tokenizer(), HEAD, lambda: texts)
    assert all(module.training for module in fitted.modules())
    wanted = logits(teacher, texts)
    assert explained(logits(fitted, texts), wanted) > 0.5 > explained(logits(random, texts), wanted)


def test_a_student_as_large_as_its_teacher_is_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gains of 1 and offsets of 0 the turned stream loses nothing; without the ridge the fits lose nothing."""
    monkeypatch.setattr(least_squares, "RIDGE", 1e-9)
    teacher = taught("bert")
    for module in teacher.model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight), nn.init.zeros_(module.bias)
    sizes = {**BERT, **{name: getattr(teacher.model.config, name) for name in BERT if name != "model_type"}}
    student = Student(sizes=sizes).build(teacher, tokenizer(), HEAD)
    share = start_from(teacher, student, batches(), slice(None))
    assert share > 0.99


def test_a_teacher_in_bf16_is_fitted_in_fp32_and_stays_as_it_is() -> None:
    teacher, texts = taught("bert"), batches()
    teacher.model.to(torch.bfloat16)
    before = weights_digest(teacher.model)
    student = Student(sizes=BERT, start="teacher").build(teacher, tokenizer(), HEAD, lambda: texts)
    assert explained(logits(student, texts), logits(teacher, texts).float()) > 0.5
    assert {each.dtype for each in student.parameters()} == {torch.float32}
    assert weights_digest(teacher.model) == before


def test_a_head_larger_than_the_teachers_asks_nothing_of_its_random_keys() -> None:
    """One head of 12 from heads of 8: four of its queries are 0, and their keys are random, so that they can learn."""
    teacher, texts = taught("bert"), batches()
    student = Student(sizes={**BERT, "num_attention_heads": 1}, start="teacher").build(
        teacher, tokenizer(), HEAD, lambda: texts
    )
    own = student.model.base_model.encoder.layer[0].attention.self
    assert not own.query.weight[8:].any() and own.query.weight[:8].all() and own.key.weight.all()
    assert explained(logits(student, texts), logits(teacher, texts)) > 0.3


def test_padding_and_what_stands_in_it_change_nothing() -> None:
    teacher = taught("bert")
    models = []
    for texts in (batches(), batches(more=3, junk=7)):
        torch.manual_seed(0)
        models.append(Student(sizes=BERT, start="teacher").build(teacher, tokenizer(), HEAD, lambda texts=texts: texts))
    assert torch.allclose(logits(models[0], batches()), logits(models[1], batches()), atol=2e-3)


def test_outputs_in_another_order_are_the_teachers() -> None:
    teacher, texts = taught("bert"), batches()
    names = (*reversed(HEAD.names),)
    student = Student(sizes=BERT, start="teacher").build(teacher, tokenizer(), Head.of_labels(names), lambda: texts)
    same, turned = logits(teacher, texts), logits(teacher, texts).flip(1)
    own = logits(student, texts)
    assert explained(own, turned) > 0.5 > explained(own, same)


@pytest.mark.parametrize(
    ("student", "kind", "message"),
    [
        (Student(sizes=BERT, start="theacher"), "labels", r"student\.start=theacher must be one of random, teacher"),
        (Student(sizes=ROBERTA, start="teacher"), "labels", r"makes a roberta of a bert; both must be of one family"),
        (
            Student(sizes={**BERT, "hidden_size": 64}, start="teacher"),
            "labels",
            r"hidden_size=64 is above the teacher's",
        ),
        (
            Student(sizes={**BERT, "intermediate_size": 4096}, start="teacher"),
            "labels",
            r"intermediate_size=4096 is above the teacher's",
        ),
        (
            Student(sizes={**BERT, "is_decoder": True}, start="teacher"),
            "labels",
            "leave is_decoder out of student.sizes",
        ),
        (Student(sizes=BERT, start="teacher"), "tokens", r"student\.start=teacher fits classifiers"),
    ],
)
def test_a_start_that_cannot_be_had_is_refused(student: Student, kind: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_start(student, config("bert"), tokenizer(), kind)


def test_a_start_that_is_ignored_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_start(Student(layers=[1], sizes=BERT, start="teacher"), config("bert"), tokenizer(), "labels")
    assert "student.start=teacher is ignored: student.layers says" in caplog.text


def test_heads_larger_than_the_teachers_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_start(
            Student(sizes={**BERT, "num_attention_heads": 1}, start="teacher"), config("bert"), tokenizer(), "labels"
        )
        text = caplog.text
        check_start(Student(sizes=BERT, start="teacher"), config("bert"), tokenizer(), "labels")
    assert "student.sizes.num_attention_heads=" in text and caplog.text == text
