"""Models that answer with vectors: their width, their pooling, students of them, and their folders."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract.tiny_models import VECTOR, config, encoder, inputs, model, tokenizer
from torch import nn

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.export.hf import save_student
from mangakd.models import load
from mangakd.models.encoder import Encoder, encoder_digest
from mangakd.models.pooling import Dense, Pooling, VectorHead
from mangakd.students.build import Student
from mangakd.teachers.local import LocalTeacher

KINDS = ("bert", "distilbert", "roberta", "modernbert", "mpnet")
WIDE = Pooling("cls", normalize=True, dense=(Dense(16, 24, activation="Tanh"),))
SIZES = {
    "model_type": "bert",
    "num_hidden_layers": 1,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def saved(folder: Path, pooling: Pooling | None = None, kind: str = "bert") -> str:
    taught = encoder(config(kind), VECTOR)
    torch.manual_seed(1)
    spec = replace(taught.spec, head=Head("vector", (pooling or Pooling()).width(16)))
    Encoder(taught.model, spec, VectorHead(pooling)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def read(path: str) -> Encoder:
    outline = load.outline_trained(path, "teacher.path", "vector")
    assert outline is not None
    return load.encoder(load.read_model(outline, path, "teacher.path"), outline.head, "teacher", tokenizer()).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_either_side_gives_one_vector(kind: str) -> None:
    taught = encoder(config(kind), VECTOR)
    answer = taught(inputs(width=12))
    assert answer.logits is None and answer.vector is answer.answer and answer.vector.shape == (3, 16)
    assert taught.spec.head == Head("vector", 16) and str(VECTOR) == "a vector"
    torch.testing.assert_close(answer.vector.norm(dim=1), torch.ones(3))
    if kind in ("bert", "distilbert"):  # the others number positions from the padding on
        plain = taught(inputs()).vector
        torch.testing.assert_close(answer.vector, plain, rtol=1e-4, atol=1e-5)
    tapped = taught.require(Need(True, frozenset({0, 3}), frozenset({1})))(inputs(width=12))
    torch.testing.assert_close(tapped.vector, answer.vector)
    assert set(tapped.hidden) == {0, 3} and set(tapped.attention) == {1}


@pytest.mark.parametrize("pooling", [Pooling(), Pooling("max", normalize=False), WIDE], ids=lambda p: p.pooling)
def test_a_folder_is_read_as_it_was_saved(tmp_path: Path, pooling: Pooling) -> None:
    path = saved(tmp_path / "model", pooling)
    outline = load.outline_trained(path, "teacher.path", "vector")
    assert outline is not None and outline.head == Head("vector", pooling.width(16))
    unread = load.encoder(outline.model, outline.head, "teacher", tokenizer())
    assert (
        unread.spec.head == outline.head
        and unread.pooling is not None
        and unread.pooling.settings.width(16) == pooling.width(16)
    )
    taught = read(path)
    assert outline.digest(torch.float32) == encoder_digest(taught)
    again = saved(tmp_path / "again", pooling)
    torch.testing.assert_close(read(again)(inputs()).vector, taught(inputs()).vector, rtol=0, atol=0)
    assert LocalTeacher(taught, VECTOR).spec.head == outline.head


def test_the_fingerprint_knows_the_pooling(tmp_path: Path) -> None:
    digests = {
        encoder_digest(read(saved(tmp_path / str(i), each))) for i, each in enumerate((None, Pooling("cls"), WIDE))
    }
    assert len(digests) == 3


def test_a_pooler_that_the_files_lack_is_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    masked = load.outline_for(path, VECTOR, "teacher.path").read(torch.float32)
    masked.pooler = None
    masked.save_pretrained(path)
    one, two = (load.outline_trained(path, "teacher.path", "vector") for _ in range(2))
    assert one is not None and two is not None and one.digest(torch.float32) == two.digest(torch.float32)
    assert read(path).model.pooler is None
    student = Student(layers=[1, 3]).build(read(path), tokenizer(), VECTOR)
    assert student.model.pooler is None and student(inputs()).vector.isfinite().all()


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    taught = read(path)
    taught.model.config.num_hidden_layers = 5
    taught.model.config.save_pretrained(path)
    with pytest.raises(UserError, match=r"lacks \d+ encoder weights \(such as encoder\.layer\.3"):
        load.outline_trained(path, "teacher.path", "vector")


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_all_layers_says_what_its_teacher_says(tmp_path: Path, kind: str) -> None:
    taught = read(saved(tmp_path / "teacher", WIDE, kind))
    student = Student(layers=[1, 2, 3]).build(taught, tokenizer(), VECTOR)
    assert student.spec.head == taught.spec.head == Head("vector", 24) == Student(layers=[2]).spec(
        taught.model.config, tokenizer(), VECTOR
    ).head  # fmt: skip
    torch.testing.assert_close(student.eval()(inputs()).vector, taught(inputs()).vector, rtol=0, atol=0)
    two = Student(layers=[1, 3]).build(taught, tokenizer(), VECTOR)
    assert two.spec.layers == 2 and two(inputs()).vector.shape == (3, 24)


def test_students_of_sizes_and_of_folders(tmp_path: Path) -> None:
    small = Student(sizes=SIZES).build(None, tokenizer(), VECTOR)
    assert small.spec.head == Head("vector", 12) and small.pooling is not None and small.pooling.settings == Pooling()
    path = saved(tmp_path / "other", Pooling("max", normalize=False))
    other = Student(path=path).build(None, tokenizer(), VECTOR)
    assert other.pooling is not None and other.pooling.settings.pooling == "max" and other.training
    torch.testing.assert_close(other.eval()(inputs()).vector, read(path)(inputs()).vector, rtol=0, atol=0)


def test_every_weight_that_learns_has_a_gradient(tmp_path: Path) -> None:
    """DDP waits for the gradients of all that learn."""
    student = Student(layers=[1, 2]).build(read(saved(tmp_path / "teacher", WIDE)), tokenizer(), VECTOR)
    student(inputs()).vector.square().sum().backward()
    student(inputs()).vector[:, 0].sum().backward()
    lacking = [name for name, p in student.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking and any(name.startswith("pooling.dense") for name, p in student.named_parameters())


def test_the_saved_student_is_a_folder_of_sentence_transformers(tmp_path: Path) -> None:
    student = Student(layers=[1, 3]).build(read(saved(tmp_path / "teacher", WIDE)), tokenizer(), VECTOR).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01)  # trained
    expected = student(inputs()).vector
    save_student(student.model, tokenizer(), tmp_path / "student", "card", pooling=student.pooling)
    names = {str(file.relative_to(tmp_path / "student")) for file in (tmp_path / "student").rglob("*.*")}
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "model.safetensors"} <= names
    torch.testing.assert_close(read(str(tmp_path / "student"))(inputs()).vector, expected, rtol=1e-5, atol=1e-6)


def test_a_vector_reaches_the_losses_by_its_field() -> None:
    mask, answer = torch.ones(2, 3), torch.randn(2, 4)
    vector, logits = Outputs.of("vector", answer, mask), Outputs.of("score", answer, mask)
    assert vector.vector is vector.answer is answer and vector.logits is None
    assert logits.logits is logits.answer is answer and logits.vector is None


def test_a_classifier_s_encoder_is_a_model_of_vectors(tmp_path: Path) -> None:
    model(config("bert"), seed=3).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    taught = read(str(tmp_path))
    assert taught.spec == ModelSpec.from_config(
        taught.model.config, "teacher", Head("vector", 16), taught.spec.vocabulary
    )
    assert not any(isinstance(module, nn.Linear) and module.out_features == 5 for module in taught.modules())
