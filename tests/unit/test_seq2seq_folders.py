"""Folders of models with an encoder and a decoder: loading, students of some layers or of sizes, and saving keep the head."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.tiny_models import tokenizer
from safetensors.torch import load_file, save_file
from tiny_language import logits
from tiny_seq2seq import AFTER, CONFIGS, FIRST, SECOND, inputs, own_logits, save
from transformers import AutoModelForSeq2SeqLM, LlamaConfig

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export.hf import save_student
from mangakd.models import load, seq2seq
from mangakd.models.encoder import Encoder
from mangakd.models.heads import own
from mangakd.models.outline import weights_digest
from mangakd.planning.sizes import Model
from mangakd.students.build import Student
from mangakd.students.checks import check_layers
from mangakd.students.stacks import example

KEY = "teacher.path"
each = pytest.mark.parametrize("kind", CONFIGS)


def reader() -> Any:
    made = tokenizer()
    made.eos_token = "[SEP]"
    return made


def read(folder: Path) -> Encoder:
    outline = load.outline_trained(str(folder), KEY, "tokens")
    assert outline is not None
    model = load.read_model(outline, str(folder), KEY)
    assert outline.digest(torch.float32) == weights_digest(model)
    return load.encoder(model, outline.head, "teacher", reader()).eval()


def head_of(encoder: Encoder) -> torch.Tensor:
    return encoder.model.get_output_embeddings().weight.detach()


# --- the head at every step ------------------------------------------------------------------------------------------


@each
def test_the_head_is_the_same_after_each_step(kind: str, tmp_path: Path) -> None:
    """Load, a student of layers, its saved folder, that folder loaded as student and by transformers; and the answers are."""
    teacher = read(save(tmp_path / "teacher", kind))
    head, tied = head_of(teacher), "untied" not in kind
    assert seq2seq.is_tied(teacher.model) == tied
    torch.testing.assert_close(logits(teacher(inputs())), own_logits(teacher.model, inputs()), rtol=1e-5, atol=1e-5)
    for layers in ([1, 3, 5], [2, 1, 4], [1, 2, 3, 4, 5]):
        student = Student(layers=layers).build(teacher, reader(), AFTER).eval()
        decoders = sum(layer > FIRST for layer in layers)
        assert (student.spec.encoder_layers, student.spec.layers) == (len(layers) - decoders, len(layers))
        assert seq2seq.is_tied(student.model) == tied and torch.equal(head_of(student), head)
        save_student(student.model, reader(), tmp_path / "student", "card")
        again = Student(path=str(tmp_path / "student")).build(None, reader(), AFTER).eval()
        plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "student").eval()
        assert seq2seq.is_tied(again.model) == tied and torch.equal(head_of(again), head)
        assert torch.equal(plain.get_output_embeddings().weight, head)
        torch.testing.assert_close(logits(again(inputs())), logits(student(inputs())), rtol=0, atol=0)
        torch.testing.assert_close(own_logits(plain, inputs()), logits(student(inputs())), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(again(inputs())), logits(teacher(inputs())), rtol=0, atol=0)  # all layers


def test_a_head_in_the_files_wins_over_what_config_json_says_of_it(tmp_path: Path) -> None:
    """Hub folders of T5 1.1 and flan-T5 say false; versions 5 of transformers write true into all, and bart may say false."""
    for kind in ("t5 untied", "mt5 untied", "bart untied"):
        folder = save(tmp_path / kind, kind)
        head = head_of(read(folder))
        for says in (True, False):
            file = folder / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": says}))
            found = read(folder)
            assert torch.equal(head_of(found), head) and not seq2seq.is_tied(found.model)
            table = found.model.get_input_embeddings().weight
            assert all(each.embed_tokens.weight is table for each in seq2seq.bodies(found.model))


def test_the_saved_folder_of_an_untied_t5_says_so_to_older_versions(tmp_path: Path) -> None:
    for kind, says in (("t5", True), ("t5 untied", False), ("mt5 untied", False), ("bart untied", True)):
        config = json.loads((save(tmp_path / kind, kind) / "config.json").read_text())
        assert config["tie_word_embeddings"] is says, kind


# --- students --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_students_of_sizes(kind: str, tie: bool, tmp_path: Path) -> None:
    entries = {name: value for name, value in CONFIGS[kind]().to_dict().items() if name in _SIZES}
    student = Student(sizes={"model_type": kind, **entries, "tie_word_embeddings": tie})
    torch.manual_seed(0)
    made = student.build(None, reader(), AFTER).eval()
    assert made.spec == student.spec(None, reader(), AFTER) and made.spec.encoder_layers == FIRST
    assert made.model.config.decoder_start_token_id == reader().pad_token_id
    assert seq2seq.is_tied(made.model) == tie and logits(made(inputs())).std() < 3
    save_student(made.model, reader(), tmp_path / "student", "card")
    again = Student(path=str(tmp_path / "student")).build(None, reader(), AFTER).eval()
    assert torch.equal(logits(again(inputs())), logits(made(inputs())))


_SIZES = {
    "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "encoder_layers", "decoder_layers",
    "encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim",
}  # fmt: skip


def test_layers_that_make_no_student_are_refused_with_an_example(tmp_path: Path) -> None:
    config = load.load_config(str(save(tmp_path, "t5")))
    shape = load.shape(config, KEY, "tokens")
    assert example(config) == "[2,3,5]"
    check_layers(shape, [2, 3, 5], "tokens")
    for layers in ([1], [3], [4, 1], [3, 1, 2]):
        with pytest.raises(UserError, match=r"encoder \(1…2\), then layers of its decoder \(3…5\).*=\[2,3,5\]"):
            check_layers(shape, layers, "tokens")
    with pytest.raises(UserError, match=r"must name teacher layers 1…5; there is no layer \[6\]"):
        check_layers(shape, [1, 6], "tokens")


@each
def test_a_plan_counts_the_parameters_of_both_stacks_and_of_an_own_head(kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path, kind)
    taught = read(folder)
    planned = Model.from_config(load.load_config(str(folder)), kind, "tokens", KEY)
    assert planned.parameters == sum(p.numel() for p in taught.model.parameters())
    assert (
        planned.layers == FIRST
        and planned.decoder is not None
        and planned.decoder.layers == SECOND
        and planned.per_token
    )


# --- what is refused -------------------------------------------------------------------------------------------------


def test_each_kind_of_model_is_refused_where_the_other_is_asked_for(tmp_path: Path) -> None:
    folder = str(save(tmp_path, "t5"))
    with pytest.raises(UserError, match=r"teacher\.path=.* is a t5, which has an encoder and a decoder.*task=rewrite"):
        load.outline_for(folder, Head("tokens", 0), KEY)
    with pytest.raises(UserError, match="is a t5, which has an encoder and a decoder"):
        own(Head("tokens", 0), load.load_config(folder))
    llama = LlamaConfig(vocab_size=90)
    with pytest.raises(UserError, match=r"llama is a llama, which has no encoder and decoder.*task=response"):
        own(AFTER, llama)
    sizes = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(UserError, match=r"student\.sizes is a llama, which has no encoder and decoder"):
        Student(sizes=sizes).build(None, reader(), AFTER)


def test_folders_without_a_start_token_or_with_a_tokenizer_without_its_tokens(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "t5")
    content = json.loads((folder / "tokenizer_config.json").read_text())
    for missing, message in (
        ("eos_token", "no token that ends a text.*set eos_token"),
        ("pad_token", "no padding token"),
    ):
        marks = {"eos_token": "[SEP]", "pad_token": "[PAD]"} | {missing: None}
        (folder / "tokenizer_config.json").write_text(json.dumps({**content, **marks}))
        with pytest.raises(UserError, match=rf"the tokenizer of {KEY}=.* has {message}"):
            load.load_tokenizer(str(folder), KEY, "tokens")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"decoder_start_token_id": None}))
    with pytest.raises(UserError, match=r"the config of teacher\.path=.* has no decoder_start_token_id"):
        load.outline_trained(str(folder), KEY, "tokens")


def test_files_without_a_part_of_the_model_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "bart untied")
    weights = load_file(folder / "model.safetensors")
    for lost in ("model.decoder.layers.1.fc1.weight", "model.shared.weight"):
        shutil.copytree(folder, tmp_path / "cut", dirs_exist_ok=True)
        rest = {name: each for name, each in weights.items() if name != lost}
        save_file(rest, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
        if lost == "model.shared.weight":  # the head is then the table, as transformers has it
            assert seq2seq.is_tied(read(tmp_path / "cut").model)
            continue
        with pytest.raises(UserError, match=rf"lacks 1 encoder weights \(such as {lost}\)"):
            read(tmp_path / "cut")
    assert SECOND == 3
