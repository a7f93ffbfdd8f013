"""What folders of sentence-transformers say beside their weights, and activations as text. Needs no sentence-transformers.

tests/export/test_in_sentence_transformers.py loads such folders with the library itself.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import save_tokenizer
from torch import nn

from mangakd.core.errors import UserError
from mangakd.models import load
from mangakd.models.activations import activation, activation_call
from mangakd.models.sentence_transformers import (
    LENGTHS,
    SETTINGS,
    Settings,
    kind_of,
    read_activation,
    read_settings,
    write_cross_encoder,
    write_settings,
)

FULL = Settings({"query": "query: ", "document": ""}, "query", 48, True, "dot", (128, 64))


def put(folder: Path, name: str, **content: Any) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("settings", [Settings(), FULL])
def test_settings_are_read_back(tmp_path: Path, settings: Settings) -> None:
    write_settings(settings, tmp_path, "SentenceTransformer")
    assert read_settings(tmp_path) == settings and kind_of(tmp_path) == "SentenceTransformer"


def test_dims_are_the_student_s_own(tmp_path: Path) -> None:
    """A config that came from the teacher may say others."""
    for settings in (Settings(dims=(32, 8)), Settings()):
        put(tmp_path, "config.json", model_type="bert", matryoshka_dimensions=[256])
        write_settings(settings, tmp_path, "SentenceTransformer")
        assert read_settings(tmp_path).dims == settings.dims
        assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"


def test_a_folder_that_says_nothing(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings() and kind_of(tmp_path) is None
    assert kind_of(put(tmp_path, "modules.json")) == "SentenceTransformer"


@pytest.mark.parametrize("name", ["passage", "corpus"])
def test_the_prompt_of_documents_gets_the_name_that_is_read(tmp_path: Path, name: str) -> None:
    write_settings(Settings({name: "text: "}), tmp_path, "SentenceTransformer")
    assert read_settings(tmp_path).prompts == {name: "text: ", "document": "text: "}
    write_settings(Settings({name: "text: ", "document": "own: "}), tmp_path, "SentenceTransformer")
    assert read_settings(tmp_path).prompts["document"] == "own: "


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (SETTINGS, {"prompts": ["a"]}, "prompts must be texts by name"),
        (SETTINGS, {"prompts": {"a": 1}}, "prompts must be texts by name"),
        (SETTINGS, {"default_prompt_name": "q"}, "the default prompt 'q' is none of the prompts: none"),
        (SETTINGS, {"similarity_fn_name": "near"}, "no similarity 'near'"),
        (
            "config.json",
            {"matryoshka_dimensions": "128"},
            "matryoshka_dimensions must be a list of whole numbers; it holds 128",
        ),
        ("config.json", {"matryoshka_dimensions": [0]}, "must be a list of whole numbers"),
        (LENGTHS, {"max_seq_length": 0}, "max_seq_length=0 is no number of tokens"),
        (LENGTHS, {"max_seq_length": True}, "max_seq_length=True"),
    ],
)
def test_values_that_are_none_are_told_with_their_file(
    tmp_path: Path, name: str, content: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as told:
        read_settings(put(tmp_path, name, **content))
    assert name in str(told.value)


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(UserError, match=f"{SETTINGS} is damaged"):
        kind_of(tmp_path)
    (tmp_path / SETTINGS).write_text("[]")
    with pytest.raises(UserError, match=f"{SETTINGS} holds a list"):
        read_settings(tmp_path)


def test_a_cross_encoder_is_read_back(tmp_path: Path) -> None:
    put(tmp_path, "config.json", model_type="bert")
    write_cross_encoder(Settings(max_length=32), nn.Hardtanh(0, 5), tmp_path)
    assert kind_of(tmp_path) == "CrossEncoder" and read_settings(tmp_path) == Settings(max_length=32)
    assert repr(read_activation(tmp_path)) == "Hardtanh(min_val=0, max_val=5)"
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    with pytest.raises(UserError, match=r"PReLU\(num_parameters=1\) cannot be written"):
        write_cross_encoder(Settings(), nn.PReLU(), tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_cross_encoders_of_older_versions(tmp_path: Path, config: dict[str, Any]) -> None:
    put(tmp_path, "config.json", **config)
    assert kind_of(tmp_path) == "CrossEncoder" and isinstance(read_activation(tmp_path), nn.Identity)


def test_the_default_activation_is_the_sigmoid(tmp_path: Path) -> None:
    assert isinstance(read_activation(put(tmp_path, "config.json", sentence_transformers={"version": "4"})), nn.Sigmoid)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        (nn.Tanh(), "activation.Tanh"),
        (nn.Identity(), "linear.Identity"),
        (nn.ReLU(inplace=True), "activation.ReLU"),
        (nn.LeakyReLU(), "activation.LeakyReLU"),
        (nn.LeakyReLU(0.3), "activation.LeakyReLU(negative_slope=0.3)"),
        (nn.Hardtanh(0, 5), "activation.Hardtanh(min_val=0, max_val=5)"),
        (nn.Hardshrink(0.7), "activation.Hardshrink(0.7)"),
        (nn.GELU("tanh"), "activation.GELU(approximate='tanh')"),
        (nn.ELU(0.5, inplace=True), "activation.ELU(alpha=0.5)"),
        (nn.Threshold(0.1, 20), "activation.Threshold(threshold=0.1, value=20)"),
    ],
)
def test_activations_are_text_with_their_arguments(module: nn.Module, call: str) -> None:
    assert activation_call(module) == f"torch.nn.modules.{call}"
    assert repr(activation(activation_call(module), "here")) == repr(module).replace(", inplace=True", "").replace(
        "inplace=True", ""
    )


class Own(nn.Module):
    """Of nobody's library."""


@pytest.mark.parametrize("module", [Own(), nn.Sequential(nn.Tanh(), nn.ReLU())])
def test_activations_that_nobody_else_has_are_not_written(module: nn.Module) -> None:
    with pytest.raises(UserError, match="cannot be written into a folder"):
        activation_call(module)


@pytest.mark.parametrize(
    "call",
    [
        "os.system('x')",
        "torch.nn.LeakyReLU(open('x'))",
        "shop.Tanh",
        "torch.nn.Linear",
        "torch.nn.functional.relu",
        "(",
    ],
)
def test_other_code_is_not_run(call: str) -> None:
    with pytest.raises(UserError, match="here: the activation"):
        activation(call, "here")


def test_texts_are_lower_cased_where_the_folder_says_so(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    put(tmp_path, "config.json", model_type="bert", vocab_size=5000)
    cased = json.loads((tmp_path / "tokenizer_config.json").read_text())
    put(tmp_path, "tokenizer_config.json", **{**cased, "do_lower_case": False})
    upper = load.load_tokenizer(str(tmp_path))("WHERE")["input_ids"]
    put(tmp_path, LENGTHS, do_lower_case=True)
    lower = load.load_tokenizer(str(tmp_path))
    assert lower("WHERE")["input_ids"] == lower("where")["input_ids"] != upper
