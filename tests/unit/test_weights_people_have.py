"""Weights as other tools write them: read where their meaning is clear, else refused with file and cure; what is saved is what
was trained."""

from pathlib import Path

import pytest
import torch
from contract.tiny_models import LABELS, config, model, tokenizer
from model_folder import COUNT, KEY, change, fine_tuned, labels, renamed
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertForTokenClassification

from mangakd.core.errors import UserError
from mangakd.export import hf
from mangakd.models import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fine_tuned(tmp_path / "model")


# --- the weights decide ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [None, ["BertModel"], ["MyClassifier"], ["BertForMaskedLM"]], ids=str)
def test_a_trained_head_is_seen_in_the_weights(said: list[str] | None, folder: Path) -> None:
    assert labels(change(folder, architectures=said)) == LABELS


def test_weights_without_a_head_have_none(folder: Path) -> None:
    change(folder, architectures=["BertModel"])
    renamed(folder, lambda name: None if name.startswith("classifier.") else name)
    assert load.trained_classifier(str(folder), KEY) is None
    change(folder, architectures=["BertForSequenceClassification"])
    with pytest.raises(UserError, match=r"never fine-tuned\. Set teacher\.fit\.mode=always"):
        load.trained_classifier(str(folder), KEY)


def test_the_head_of_another_task_is_none(folder: Path) -> None:
    """Its weights have the names of a sequence classifier's."""
    BertForTokenClassification(load.load_config(str(folder))).save_pretrained(folder)
    assert load.trained_classifier(str(folder), KEY) is None
    change(folder, architectures=None)  # the pooler is missing all the same
    assert load.trained_classifier(str(folder), KEY) is None


def test_weights_saved_in_a_wrapper_are_named(folder: Path) -> None:
    renamed(folder, lambda name: f"module.{name}")
    with pytest.raises(UserError, match=r"encoder weights .*The file calls it module\.bert\..*without its wrapper"):
        load.trained_classifier(str(folder), KEY)


def test_sizes_that_the_weights_have_not(folder: Path) -> None:
    with pytest.raises(UserError, match=r"intermediate\.dense\.\w+ is \[24.* in its weights and \[48.* config\.json"):
        labels(change(folder, intermediate_size=48))


def test_layers_that_the_config_does_not_count(tmp_path: Path) -> None:
    """transformers would leave them out without a word; a head of another task is left out as it should be."""
    for kind, key in (("bert", "num_hidden_layers"), ("distilbert", "n_layers")):
        model(config(kind, layers=3)).save_pretrained(tmp_path)
        change(tmp_path, **{key: 2})
        with pytest.raises(UserError, match=rf"have 3 layers .* and {key} of its config\.json makes 2.*Set {key} to 3"):
            labels(tmp_path)
        assert labels(change(tmp_path, **{key: 3})) == LABELS
        renamed(tmp_path, lambda name: name.removeprefix(f"{kind}."))  # noqa: B023 - called at once
        with pytest.raises(UserError, match="have 3 layers"):
            labels(change(tmp_path, **{key: 2}))


def test_weights_of_whole_numbers(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file) | {"bert.embeddings.position_ids": torch.arange(3)[None]}  # once saved, never read
    save_file(weights, file, metadata={"format": "pt"})
    assert labels(folder) == LABELS
    save_file(weights | {"classifier.bias": torch.zeros(COUNT, dtype=torch.int8)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"classifier\.bias in model\.safetensors is of dtype int8"):
        labels(folder)
    file.unlink()
    torch.save(weights | {"classifier.bias": torch.zeros(COUNT, dtype=torch.int32)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"classifier\.bias in pytorch_model\.bin is of dtype int32"):
        labels(folder)


def test_a_part_of_a_head_is_no_head(folder: Path) -> None:
    renamed(folder, lambda name: None if name == "classifier.bias" else name)
    with pytest.raises(UserError, match=r"its weights lack classifier\.bias: damaged"):
        labels(folder)


# --- what is saved is what was trained -------------------------------------------------------------------------------


def test_a_student_that_cannot_be_loaded_again_is_no_success(tmp_path: Path) -> None:
    student = model(config("modernbert", layers=4))
    hf.save_student(student, tokenizer(), tmp_path / "good", "card")
    torch.testing.assert_close(
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "good").state_dict(), student.state_dict()
    )
    student.config.layer_types = ["full_attention"] * 4
    with pytest.raises(UserError, match=r"cannot load it again from .*student\.partial"):
        hf.save_student(student, tokenizer(), tmp_path / "student", "card")
    assert not (tmp_path / "student").exists() and (tmp_path / "student.partial" / "model.safetensors").is_file()


def test_a_student_that_loads_as_another_model_is_no_success(tmp_path: Path) -> None:
    """Layers behind what config.json says are left out in silence."""
    student = model(config("bert", layers=2))
    student.config.num_hidden_layers = 1
    with pytest.raises(UserError, match="outputs differ by"):
        hf.save_student(student, tokenizer(), tmp_path / "student", "card")
