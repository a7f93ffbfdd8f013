"""Students of language models: of a teacher's layers, of sizes, of a folder. What is tied stays tied; logits are equal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from contract.tiny_models import tokenizer
from tiny_language import CONFIGS, LAYERS, TOKENS, VOCAB, encoder, inputs, logits, model, own_logits
from transformers import AutoModelForCausalLM, SmolLM3Config

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models import load
from mangakd.models.attention import keep_soft_cap
from mangakd.models.encoder import Encoder
from mangakd.students.build import Student
from mangakd.students.checks import check_layers

SIZES = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "tie_word_embeddings": True,
}  # fmt: skip


def teacher(kind: str) -> Encoder:
    taught = encoder(kind)
    keep_soft_cap(taught.model)
    return taught


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_student_of_all_layers_says_what_its_teacher_says(kind: str, tmp_path: Path) -> None:
    taught, given = teacher(kind), inputs()
    student = Student(layers=range(1, LAYERS + 1)).build(taught, tokenizer(), TOKENS).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(student(given)), logits(taught(given)), rtol=0, atol=0)
    tied = taught.model.config.tie_word_embeddings
    for built in (taught.model, student.model):
        assert (built.get_output_embeddings().weight is built.get_input_embeddings().weight) == tied
    assert student.spec.head == taught.spec.head == Head("tokens", VOCAB)
    short = Student(layers=[1, LAYERS])
    check_layers(load.shape(taught.model.config, "teacher.path", "tokens"), [1, LAYERS], "tokens")
    built = short.build(taught, tokenizer(), TOKENS).eval()
    assert built.spec == short.spec(taught.model.config, tokenizer(), TOKENS) and built.spec.layers == 2
    built.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=built.model.config._attn_implementation)
    with torch.no_grad():
        torch.testing.assert_close(own_logits(again.eval(), given), logits(built(given)), rtol=1e-5, atol=1e-5)
    assert [*again.state_dict()] == [*built.model.state_dict()]


def test_weights_are_copied_and_not_shared() -> None:
    taught = teacher("llama")
    student = Student(layers=[2]).build(taught, tokenizer(), TOKENS)
    for name, weight in student.model.named_parameters():
        source = taught.model.get_parameter(name.replace("layers.0", "layers.1"))
        assert torch.equal(weight, source) and weight.data_ptr() != source.data_ptr()


def test_each_layer_keeps_its_own_settings() -> None:
    """SmolLM3 rotates positions in some layers, and Gemma 2 has a window in every second one."""
    config = SmolLM3Config(**CONFIGS["llama"]().to_diff_dict() | {"no_rope_layers": [1, 0, 1], "layer_types": None})
    config.num_hidden_layers = LAYERS
    options = Student(layers=[2, 3])
    assert options.config(config, tokenizer()).no_rope_layers == [0, 1]
    types = CONFIGS["gemma2"]().layer_types
    assert options.config(CONFIGS["gemma2"](), tokenizer()).layer_types == types[1:] and len(set(types)) == 2


def test_a_student_of_sizes_has_the_ids_of_its_tokenizer() -> None:
    reader = tokenizer()
    reader.eos_token = "w5"
    student = Student(sizes=SIZES).build(None, reader, TOKENS)
    config = student.model.config
    assert student.spec.head == Head("tokens", len(reader)) and config.eos_token_id == reader.eos_token_id
    assert student.model.lm_head.weight is student.model.model.embed_tokens.weight and student.training
    logits(student(inputs())).square().sum().backward()
    assert all(p.grad is not None for p in student.parameters())
    wide = Student(sizes={**SIZES, "vocab_size": 200}).spec(None, reader, TOKENS)
    assert wide.head.outputs == 200


def test_a_student_of_a_folder(tmp_path: Path) -> None:
    saved = model("qwen3", seed=3)
    saved.save_pretrained(tmp_path)
    student = Student(path=str(tmp_path)).build(None, tokenizer(), TOKENS).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(student(inputs())), own_logits(saved, inputs()), rtol=1e-5, atol=1e-5)


def test_sizes_of_an_encoder_make_no_language_model() -> None:
    sizes: dict[str, Any] = {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    with pytest.raises(UserError, match=r"student\.sizes is a bert, no causal language model"):
        Student(sizes=sizes).build(None, tokenizer(), TOKENS)
