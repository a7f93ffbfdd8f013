"""Students: from sizes, from a folder, from the teacher's layers; and the pair of models that users really have."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from contract.tiny_models import HEAD, LABELS, SEVERAL, VOCAB, WORDS, config, encoder, inputs, model, texts, tokenizer
from transformers import AutoConfig, BertConfig, DistilBertConfig

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokenising import tokenise
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.losses.relation import RelationLoss
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.outline import weights_digest
from mangakd.students.build import Student
from mangakd.tasks.classification.encode import labelled
from mangakd.teachers.local import LocalTeacher

CONF = Path(__file__).parents[2] / "conf" / "student"
STUDENTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("[!_]*.yaml"))}
SIZED = {name: entry["sizes"] for name, entry in STUDENTS.items() if "sizes" in entry}
SMALL = {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}


def answer(taught: Encoder) -> torch.Tensor:
    with torch.no_grad():
        return taught.eval()(inputs()).logits


# --- from sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZED)
def test_the_sizes_of_the_config_are_the_students(name: str) -> None:
    taught = encoder(config("distilbert"))
    student = Student(sizes=SIZED[name])
    with torch.device("meta"):
        built = student.build(taught, tokenizer(), HEAD)
    spec = student.spec(taught.model.config, tokenizer(), HEAD)
    assert built.spec == spec, "preflight checks the student that will be built"
    wanted = AutoConfig.for_model(**SIZED[name])
    assert (spec.layers, spec.hidden, spec.heads) == (
        wanted.num_hidden_layers, wanted.hidden_size, wanted.num_attention_heads,
    )  # fmt: skip
    assert built.model.get_input_embeddings().weight.shape == (VOCAB, spec.hidden)
    assert spec.head.names == LABELS and spec.vocabulary == load.vocabulary_digest(tokenizer())


def test_random_parts_follow_the_seed_and_the_mode_is_training() -> None:
    taught = encoder(config("bert"))
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(Student(sizes=SMALL).build(taught, tokenizer(), SEVERAL))
    digests = [weights_digest(student.model) for student in made]
    assert digests[0] == digests[1] != digests[2]
    assert all(module.training for module in made[0].modules())
    assert made[0].spec.head.several and made[0].model.config.pad_token_id == 0


def test_a_student_without_a_source_is_refused() -> None:
    with pytest.raises(UserError, match=r"student\.path, student\.layers nor student\.sizes"):
        Student().build(encoder(config("bert")), tokenizer(), HEAD)


# --- from the teacher's layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra", "modernbert"])
def test_all_layers_make_the_teacher_again(kind: str) -> None:
    taught = encoder(config(kind))
    taught.require(Need(attention=frozenset({1})))  # a tapped teacher must not hand its taps on
    student = Student(layers=[1, 2, 3]).build(taught, tokenizer(), HEAD)
    assert student.model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(answer(student), answer(taught.require(Need(True))), rtol=0, atol=0)
    student.model.get_input_embeddings().weight.data.zero_()
    assert taught.model.get_input_embeddings().weight.abs().sum() > 0, "weights are copied, not shared"


@pytest.mark.parametrize("layers", [[2], [3, 1], [1, 1, 2], [2, 3], [3, 2, 1, 2]], ids=str)
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_any_layers_in_any_order(kind: str, layers: list[int]) -> None:
    taught = encoder(config(kind))
    student = Student(layers=layers).build(taught, tokenizer(), HEAD)
    assert student.spec == Student(layers=layers).spec(taught.model.config, tokenizer(), HEAD)
    names = {"bert": "bert.encoder.layer", "distilbert": "distilbert.transformer.layer"}
    source, made = (e.model.state_dict() for e in (taught, student))
    for name, tensor in made.items():
        where = name
        if name.startswith(names[kind]):
            place, rest = name.removeprefix(names[kind] + ".").split(".", 1)
            where = f"{names[kind]}.{layers[int(place)] - 1}.{rest}"
        assert torch.equal(tensor, source[where]), f"{name} is not the teacher's {where}"
    assert taught.model.config.num_hidden_layers == 3


def test_the_kind_of_each_layer_is_kept() -> None:
    taught = encoder(config("modernbert", layers=4))
    types = taught.model.config.layer_types
    student = Student(layers=[1, 2, 4]).build(taught, tokenizer(), HEAD)
    assert student.model.config.layer_types == [types[0], types[1], types[3]] and len(set(types)) == 2
    with pytest.raises(UserError, match=r"student\.layers=\[2, 4\] does not fit modernbert"):
        Student(layers=[2, 4]).build(taught, tokenizer(), HEAD)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_the_head_is_put_into_the_datas_order(kind: str) -> None:
    taught = encoder(config(kind, hidden=len(LABELS) * 2))  # sizes that could be mistaken for one another
    student = Student(layers=[1, 2, 3]).build(taught, tokenizer(), Head.of_labels(LABELS[::-1]))
    assert student.spec.head.names == LABELS[::-1]
    torch.testing.assert_close(answer(student), answer(taught).flip(-1), rtol=0, atol=0)


def test_other_labels_get_a_new_head_and_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    taught = encoder(config("bert"))
    with caplog.at_level(logging.INFO):
        student = Student(layers=[1, 3]).build(taught, tokenizer(), Head.of_labels("ab"))
    assert "head is new" in caplog.text and answer(student).shape == (3, 2)
    assert torch.equal(student.model.bert.pooler.dense.weight, taught.model.bert.pooler.dense.weight)


@pytest.mark.parametrize("layers", [[0, 1], [4], [], [-1]], ids=str)
def test_layers_that_are_not_there_are_refused(layers: list[int]) -> None:
    with pytest.raises(UserError, match=r"student\.layers=.* must name teacher layers 1…3"):
        Student(layers=layers).spec(encoder(config("bert")).model.config, tokenizer(), HEAD)


def test_layers_of_a_model_that_shares_them_are_refused() -> None:
    with pytest.raises(UserError, match="albert shares its layers"):
        Student(layers=[1]).build(encoder(config("albert")), tokenizer(), HEAD)


# --- from a folder ---------------------------------------------------------------------------------------------------


def folder(path: Path, built: Any, reader: Any = None, legacy: bool = False) -> str:
    """Save a model as users have it; `legacy` as pytorch_model.bin."""
    built.save_pretrained(path)
    (reader or tokenizer()).save_pretrained(path)
    if legacy:
        (path / "model.safetensors").unlink()
        torch.save(built.state_dict(), path / "pytorch_model.bin")
    return str(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["safetensors", "bin"])
def test_a_folder_is_read_as_it_is(legacy: bool, tmp_path: Path) -> None:
    saved = model(config("bert"), seed=4)
    student = Student(path=folder(tmp_path, saved, legacy=legacy))
    built = student.build(encoder(config("bert")), load.load_tokenizer(str(tmp_path)), HEAD)
    assert weights_digest(built.model) == weights_digest(saved) and built.training
    assert built.spec.vocabulary == load.vocabulary_digest(tokenizer()), "the same vocabulary, saved and read again"
    new = student.build(encoder(config("bert")), tokenizer(), Head.of_labels("abc"))
    assert new.spec.head.names == ("a", "b", "c") and answer(new).shape == (3, 3)
    assert torch.equal(new.model.bert.pooler.dense.weight, saved.bert.pooler.dense.weight)


class Payload:
    """What an attacker would pickle."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_bin_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    saved = model(config("bert"))
    path, mark = folder(tmp_path / "model", saved, legacy=True), tmp_path / "it ran"
    torch.save({**saved.state_dict(), "extra": Payload(mark)}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"student\.path=.* holds a \.bin file with something else than tensors"):
        Student(path=path).build(encoder(config("bert")), tokenizer(), HEAD)
    assert not mark.exists()
    torch.load(tmp_path / "model" / "pytorch_model.bin", weights_only=False)
    assert mark.exists(), "the file would have run code"


def test_a_torn_safetensors_file_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, model(config("bert")))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"student\.path=.* could not be loaded from this folder"):
        Student(path=path).build(encoder(config("bert")), tokenizer(), HEAD)


# --- the pair that users have: DistilBERT → TinyBERT, each with its own tokenizer files ------------------------------


def the_pair(tmp_path: Path, student_reader: Any) -> tuple[LocalTeacher, Encoder, EncodedSplit]:
    big = DistilBertConfig(**{**STUDENTS["distilbert"]["sizes"], "hidden_dim": 64}, vocab_size=VOCAB)
    small = BertConfig(**{**SIZED["tinybert_4l_312d"], "intermediate_size": 64}, vocab_size=VOCAB)
    teacher_path = folder(tmp_path / "teacher", model(big))
    student_path = folder(tmp_path / "student", model(small, Head("labels", 2)), student_reader, legacy=True)
    readers = [load.load_tokenizer(path) for path in (teacher_path, student_path)]
    taught = load.trained_classifier(teacher_path, "teacher.path")
    teacher = LocalTeacher(load.encoder(taught, HEAD, "teacher distilbert", readers[0]), HEAD)
    student = Student(path=student_path).build(teacher.encoder, readers[1], HEAD)
    sides = [tokenise(texts(12), reader, 16, tmp_path / "tokens") for reader in readers]
    labels = torch.arange(12).numpy() % len(LABELS)
    return teacher, student, labelled(Sides(sides[1], sides[0], 0, 0), labels)


def step(losses: LossSet, teacher: LocalTeacher, student: Encoder, data: EncodedSplit) -> dict[str, float]:
    """One training step as DistillModule makes it; every loss's value alone."""
    losses.bind(student.spec, teacher.spec)
    student.require(losses.requires.student)
    teacher.prepare(torch.device("cpu"), losses.requires.teacher)
    batch = data.collate([3, 1, 8, 5])
    result = losses(student(batch["student"]), teacher(batch), batch, 0.5)
    result.total.backward()
    gradients = [p.grad for p in (*student.parameters(), *losses.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert all(p.grad is None for p in teacher.encoder.parameters())
    return {name: float(value) for name, value in result.terms.items()}


def test_five_losses_on_distilbert_and_tinybert(tmp_path: Path) -> None:
    teacher, student, data = the_pair(tmp_path, tokenizer())
    sizes = [(spec.layers, spec.hidden, spec.heads) for spec in (teacher.spec, student.spec)]
    assert sizes == [(6, 768, 12), (4, 312, 12)]
    assert teacher.spec.vocabulary == student.spec.vocabulary
    assert "token_type_ids" not in teacher.encoder._accepts and "token_type_ids" in student._accepts
    losses: dict[str, LossCallback | None] = {
        "hard_label": HardLabelLoss(), "output": OutputLoss(), "hidden": HiddenLoss(), "attention": AttentionLoss(),
        "relation": RelationLoss(),
    }  # fmt: skip
    values = step(LossSet(losses), teacher, student, data)
    assert set(values) == set(losses) and all(value > 0 for value in values.values())


def test_other_vocabularies_can_share_logits_and_nothing_else(tmp_path: Path) -> None:
    teacher, student, data = the_pair(tmp_path, tokenizer(WORDS[::-1][:110]))
    assert teacher.spec.vocabulary != student.spec.vocabulary
    batch = data.collate([0, 1])
    assert batch["student"] is not batch["teacher"]
    assert not torch.equal(batch["student"]["input_ids"], batch["teacher"]["input_ids"])
    values = step(LossSet({"hard_label": HardLabelLoss(), "output": OutputLoss()}), teacher, student, data)
    assert all(value > 0 for value in values.values())
    for name, loss in (("hidden", HiddenLoss()), ("attention", AttentionLoss()), ("relation", RelationLoss())):
        with pytest.raises(UserError, match=rf"losses\.{name} compares token by token, but the tokenizers differ"):
            LossSet({name: loss}).bind(student.spec, teacher.spec)


def test_a_spec_knows_what_the_config_says() -> None:
    spec = ModelSpec.from_config(config("distilbert", layers=5, hidden=24), "x", HEAD)
    assert (spec.layers, spec.hidden, spec.heads) == (5, 24, 2)
