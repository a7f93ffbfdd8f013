"""Models of late interaction: folders (PyLate's layout), students of layers, sizes and folders, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.tiny_models import VECTOR, config, encoder, inputs, tokenizer
from test_late import LATE, apart, late_encoder, marked, tensors
from torch import nn

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export.hf import save_student
from mangakd.models import load
from mangakd.models.encoder import Encoder, encoder_digest
from mangakd.models.heads import trained_head
from mangakd.models.late import Interaction, Late, of_config, of_folder
from mangakd.models.pooling import Dense, save_dense
from mangakd.models.sentence_transformers import Settings, kind_of, read_settings
from mangakd.models.token_head import TokenHead
from mangakd.models.trial import answer_two_texts
from mangakd.students.build import Student
from mangakd.students.checks import check_layers
from mangakd.teachers.local import LocalTeacher

SCORE = Head("score", 1)
FULL = Late(6, "w0", "w1", 9, True, (".", "w2"))


def saved(folder: Path, late: Late = LATE) -> str:
    late_encoder(late=late).save_pretrained(folder)
    marked(".").save_pretrained(folder)
    return str(folder)


def read(path: str, interaction: Interaction | None = None) -> Encoder:
    outline = load.outline_trained(path, "teacher.path", "score", interaction=interaction or Interaction())
    assert outline is not None
    return load.encoder(load.read_model(outline, path, "teacher.path"), SCORE, "teacher", marked(".")).eval()


@pytest.mark.parametrize("late", [LATE, FULL, Late(6)], ids=str)
def test_a_folder_is_read_as_it_was_written(late: Late, tmp_path: Path) -> None:
    path, made = saved(tmp_path / "model", late), late_encoder(late=late)
    stored = of_folder(path)
    assert stored is not None and stored[0] == late and kind_of(path) == "ColBERT"
    again, batch = read(path), tensors(apart(tmp_path, late), [0, 1, 2, 3, 4])
    torch.testing.assert_close(again(batch).logits, made(batch).logits, rtol=0, atol=0)
    assert again.spec.head == SCORE == trained_head(again.model.config)
    outline = load.outline_trained(path, "teacher.path", "score")
    assert outline is not None and outline.digest(torch.float32) == encoder_digest(again) == encoder_digest(made)
    with torch.no_grad():
        next(again.pooling.parameters()).add_(0.1)  # type: ignore[union-attr]
    assert (
        encoder_digest(again) != encoder_digest(made) != encoder_digest(late_encoder(late=replace(late, skip=("w3",))))
    )
    assert LocalTeacher(made, SCORE).spec.head == SCORE


def test_a_student_is_saved_reloaded_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = late_encoder()
    save_student(
        made.model, marked("."), tmp_path / "student", "card", pooling=made.pooling, settings=Settings(max_length=24)
    )
    content = json.loads((tmp_path / "student" / "config_sentence_transformers.json").read_text())
    assert content["model_type"] == "ColBERT" and content["query_length"] == content["document_length"] == 24
    assert (content["query_prefix"], content["document_prefix"], content["do_query_expansion"]) == ("w0", "w1", False)
    assert read_settings(tmp_path / "student").max_length == 24
    batch = tensors(apart(tmp_path), [0, 3])
    torch.testing.assert_close(read(str(tmp_path / "student"))(batch).logits, made(batch).logits, rtol=0, atol=0)

    def other(layer: nn.Linear, settings: Dense, folder: Path) -> None:
        save_dense(nn.Linear(16, 6, bias=False), settings, folder)

    monkeypatch.setattr("mangakd.models.token_head.save_dense", other)
    with pytest.raises(UserError, match="its outputs differ"):
        save_student(made.model, marked("."), tmp_path / "wrong", "card", pooling=made.pooling)


def change(path: str, file: str, **entries: Any) -> None:
    content = json.loads((Path(path) / file).read_text())
    (Path(path) / file).write_text(json.dumps({**content, **entries}))


SETTINGS, DENSE, MODULES = "config_sentence_transformers.json", "1_Dense/config.json", "modules.json"


def test_folders_of_others(tmp_path: Path) -> None:
    """PyLate's defaults hold for entries that a folder lacks; sentence-transformers writes its own Dense."""
    path = saved(tmp_path / "bare")
    (Path(path) / SETTINGS).write_text("{}")
    stored = of_folder(path)
    assert stored is not None
    assert stored[0].query_prefix == "[Q] " and stored[0].query_length == 32 and "." in stored[0].skip
    modules = json.loads((Path(path) / MODULES).read_text())
    modules[1]["type"] = "sentence_transformers.models.Dense"
    (Path(path) / MODULES).write_text(json.dumps(modules))
    assert of_folder(path) is None, "a Dense after a mean is a model of vectors"
    change(path, DENSE, module_input_name="token_embeddings", module_output_name="token_embeddings")
    assert of_folder(path) == stored
    Encoder(encoder(config("bert"), VECTOR).model, encoder(config("bert"), VECTOR).spec).save_pretrained(tmp_path / "v")
    assert of_folder(tmp_path / "v") is None and of_folder("") is None


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        (SETTINGS, {"query_length": "32", "do_query_expansion": True}, "query_length='32' must be of type int"),
        (SETTINGS, {"query_prefix": None}, "query_prefix=None must be of type str"),
        (DENSE, {"use_residual": True}, "has a residual or reads something else than the vector of each token"),
        (DENSE, {"out_features": "x"}, "in_features and out_features as whole numbers"),
        (DENSE, {"out_features": 5}, "holds no weights of"),
    ],
)
def test_damaged_folders(file: str, entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    change(path, file, **entries)
    with pytest.raises(UserError, match=message):
        read(path)


def test_a_linear_layer_of_another_encoder_is_refused_by_the_trial(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    save_dense(nn.Linear(12, 6, bias=False), Dense(12, 6, bias=False, activation="Identity"), Path(path) / "1_Dense")
    with pytest.raises(UserError, match="key is a bert that cannot answer two texts"):
        answer_two_texts(read(path), marked("."), "key")


def test_other_modules_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    modules = json.loads((Path(path) / MODULES).read_text())
    (Path(path) / MODULES).write_text(json.dumps([*modules, {**modules[1], "path": "2_Dense"}]))
    with pytest.raises(UserError, match=r"lists Transformer, Dense, Dense; known are an encoder .* and one Dense"):
        of_folder(path)
    (Path(path) / MODULES).write_text(json.dumps([{"type": "pylate.models.Dense.Dense"}]))
    with pytest.raises(UserError, match="must be a list of modules"):
        of_folder(path)


def test_no_late_model_is_taken_for_one_of_vectors(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    with pytest.raises(UserError, match="makes a vector for each token, not one of a text"):
        load.outline_for(path, VECTOR, "teacher.path")


def test_a_choice_wins_over_the_folder(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    cross, other = Interaction.of("cross", "key"), Interaction.of({"dims": 4}, "key")
    for choice in (cross, other):
        assert load.outline_trained(path, "teacher.path", "score", interaction=choice) is None, "a new head"
    pairs = load.outline_for(path, SCORE, "teacher.path", cross).model
    assert type(pairs).__name__ == "BertForSequenceClassification" and of_config(pairs.config) is None
    wide = load.outline_for(path, SCORE, "teacher.path", other)
    head = load.encoder(wide.model, SCORE, "teacher", marked(".")).pooling
    assert isinstance(head, TokenHead) and head.linear.out_features == 4 and head.settings.query_prefix == "w0"
    again = read(path, Interaction.of({"query_prefix": ""}, "key"))
    assert again.pooling.settings == Late(6, "", "w1"), "the linear layer fits, and its weights stay"  # type: ignore[union-attr]
    torch.testing.assert_close(again.pooling.linear.weight, late_encoder().pooling.linear.weight)  # type: ignore[union-attr]


# --- students --------------------------------------------------------------------------------------------------------

KINDS = ("bert", "distilbert", "roberta", "modernbert", "mpnet")


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_student_of_a_cross_encoders_layers(kind: str) -> None:
    teacher, choice = encoder(config(kind), SCORE), {"dims": 5}
    options = Student(layers=[1, 2], interaction=choice)
    check_layers(load.shape(teacher.model.config, "teacher.path", "score"), [1, 2], "score", options.reads)
    student = options.build(teacher, tokenizer(), SCORE)
    assert student.spec.head == SCORE and student.training and student.pooling is not None
    assert student.pooling.linear.out_features == 5  # type: ignore[union-attr]
    one, other = (each.model.get_input_embeddings().weight for each in (teacher, student))
    assert torch.equal(one, other) and student.model.config.num_hidden_layers == 2
    taught = teacher.model.base_model.state_dict()
    own = student.model.state_dict()
    first = [name for name in own if ".0." in name]
    assert first and all(torch.equal(own[name], taught[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cross_encoder_of_a_late_teachers_layers(kind: str) -> None:
    teacher = late_encoder(kind)
    options = Student(layers=[1, 2], interaction="cross")
    check_layers(load.shape(teacher.model.config, "teacher.path", "score"), [1, 2], "score", options.reads)
    student = options.build(teacher, tokenizer(), SCORE)
    assert student.pooling is None and of_config(student.model.config) is None
    assert student.eval()(inputs()).answer.shape == (3, 1)
    own, taught = student.model.base_model.state_dict(), teacher.model.state_dict()
    first = [name for name in own if ".0." in name]
    assert first and all(torch.equal(own[name], taught[name]) for name in first)


def test_a_late_student_of_a_late_teachers_layers_has_its_linear_layer(tmp_path: Path) -> None:
    teacher = read(saved(tmp_path / "teacher"))
    student = Student(layers=[1, 2, 3]).build(teacher, marked("."), SCORE).eval()
    batch = tensors(apart(tmp_path), [0, 1, 4])
    torch.testing.assert_close(student(batch).logits, teacher(batch).logits)  # all layers: the teacher itself
    assert of_config(Student(layers=[1]).config(teacher.model.config, marked("."))) == LATE
    other = Student(layers=[1, 2, 3], interaction={"dims": 3}).build(teacher, marked("."), SCORE)
    assert other.pooling.linear.out_features == 3  # type: ignore[union-attr]


def test_late_students_of_sizes_and_of_folders(tmp_path: Path) -> None:
    sizes = {
        "model_type": "bert",
        "num_hidden_layers": 1,
        "hidden_size": 12,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(Student(sizes=sizes, interaction="late").build(None, tokenizer(), SCORE))
    weights = [each.pooling.linear.weight for each in made]  # type: ignore[union-attr]
    assert weights[0].shape == (128, 12) and torch.equal(*weights), "random weights follow the seed"
    assert Student(sizes=sizes).build(None, tokenizer(), SCORE).pooling is None
    path, batch = saved(tmp_path / "late"), tensors(apart(tmp_path), [0, 4])
    student = Student(path=path).build(None, marked("."), SCORE).eval()
    torch.testing.assert_close(student(batch).logits, read(path)(batch).logits)
