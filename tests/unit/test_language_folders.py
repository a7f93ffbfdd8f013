"""Causal language models out of folders: what is read, what is saved, what is refused by name."""

from pathlib import Path

import pytest
import torch
from contract.tiny_models import tokenizer
from safetensors.torch import load_file, save_file
from tiny_language import CONFIGS, LAYERS, TOKENS, VOCAB, encoder, inputs, logits, model, of_model, own_logits
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForCausalLM,
    BertConfig,
    BertGenerationConfig,
    BertGenerationDecoder,
    BertLMHeadModel,
    Llama4TextConfig,
    LlamaModel,
)

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.models import language, load
from mangakd.models.encoder import Encoder, encoder_digest
from mangakd.models.heads import trained_head
from mangakd.models.trial import check_numbers
from mangakd.runs.checks.models import check_answers
from mangakd.teachers.local import LocalTeacher

KEY = "teacher.path"
ALL = Need(True, frozenset(range(LAYERS + 1)), frozenset(range(1, LAYERS + 1)))
each = pytest.mark.parametrize("kind", CONFIGS)


def read(path: Path) -> Encoder:
    outline = load.outline_trained(str(path), KEY, "tokens")
    assert outline is not None and outline.head == Head("tokens", VOCAB)
    made = load.encoder(load.read_model(outline, str(path), KEY), outline.head, "teacher", tokenizer())
    assert outline.digest(torch.float32) == encoder_digest(made)
    return made


@each
def test_a_folder_is_read_and_saved_as_transformers_reads_it(kind: str, tmp_path: Path) -> None:
    given = inputs()
    saved = model(kind)
    saved.save_pretrained(tmp_path / "one")
    taught = read(tmp_path / "one")
    taught.require(ALL)
    assert not [name for name in taught.model.state_dict() if "mangakd" in name]
    taught.save_pretrained(tmp_path / "two")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "two").eval()
    with torch.no_grad():
        torch.testing.assert_close(own_logits(again, given), own_logits(saved, given), rtol=0, atol=0)
        again.config._attn_implementation = taught.model.config._attn_implementation
        torch.testing.assert_close(logits(taught(given)), own_logits(again, given), rtol=1e-5, atol=1e-5)
    assert trained_head(taught.model.config, TOKENS) == taught.spec.head
    teacher = LocalTeacher(taught, TOKENS)
    assert teacher.spec.head == Head("tokens", VOCAB)
    torch.testing.assert_close(logits(teacher({"teacher": given})), logits(taught(given)), rtol=0, atol=0)


def test_a_head_that_config_json_calls_tied_and_the_files_do_not(tmp_path: Path) -> None:
    model("llama").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    assert "lm_head.weight" not in weights
    head = torch.randn(VOCAB, 16)
    save_file({**weights, "lm_head.weight": head}, file, metadata={"format": "pt"})
    taught, plain = read(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(taught.model.lm_head.weight, head) and taught.model.config.tie_word_embeddings is False
    torch.testing.assert_close(logits(taught(inputs())), own_logits(plain, inputs()), rtol=1e-5, atol=1e-5)


def test_more_rows_than_tokens_are_the_models_vocabulary(tmp_path: Path) -> None:
    made = model("llama", vocab_size=160)  # the tokenizer has 130
    made.save_pretrained(tmp_path)
    outline = load.outline_trained(str(tmp_path), KEY, "tokens")
    assert outline is not None and outline.head.outputs == 160
    answer = load.encoder(outline.read(torch.float32), outline.head, "teacher", tokenizer())(inputs())
    assert logits(answer).shape[1] == 160


# --- what is no language model ---------------------------------------------------------------------------------------

_BERT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def test_models_of_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    BertLMHeadModel(BertConfig(**_BERT)).save_pretrained(tmp_path / "bert")
    bart = BartConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, decoder_attention_heads=2,
                      encoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24)  # fmt: skip
    BartForCausalLM(bart).save_pretrained(tmp_path / "bart")
    bart.is_encoder_decoder = True
    bart.save_pretrained(tmp_path / "bart")
    for name, words in (
        ("bert", r"is a bert, no causal language model"),
        ("bart", "is a bart, which has an encoder and a"),
    ):
        with pytest.raises(UserError, match=rf"teacher\.path=.*{words}.*Give a causal language model"):
            load.outline_for(str(tmp_path / name), Head("tokens", 0), KEY)
    with pytest.raises(UserError, match="is a bert, no causal language model"):
        load.outline_trained(str(tmp_path / "bert"), KEY, "tokens")
    with pytest.raises(UserError, match="is a bert, no causal language model"):
        load.shape(load.load_config(str(tmp_path / "bert")), "student.sizes", "tokens")


def test_a_model_without_its_head_is_refused(tmp_path: Path) -> None:
    LlamaModel(CONFIGS["untied"]()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"its weights lack lm_head\.weight .*saved from AutoModelForCausalLM"):
        load.outline_trained(str(tmp_path), KEY, "tokens")
    LlamaModel(CONFIGS["llama"]()).save_pretrained(tmp_path)  # its embedding is its head
    assert load.outline_trained(str(tmp_path), KEY, "tokens") is not None
    built = model("phi")
    built.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"lm_head.weight": torch.zeros(VOCAB + 1, 16)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack lm_head\.weight as config\.json describes it"):
        load.outline_trained(str(tmp_path), KEY, "tokens")


def test_gguf_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "model.Q4_1.gguf"
    file.write_bytes(b"GGUF")
    for path in (tmp_path, file):
        with pytest.raises(
            UserError, match=r"holds GGUF weights \(model\.Q4_1\.gguf\).*safetensors that they were made from"
        ):
            load.outline_trained(str(path), KEY, "tokens")
    CONFIGS["llama"]().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="holds GGUF weights"):
        load.outline_trained(str(tmp_path), KEY, "tokens")


@pytest.mark.parametrize("entry", ["logits_scaling", None])
def test_logits_that_cannot_be_computed_are_refused(
    entry: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model("granite").save_pretrained(tmp_path)
    outline = load.outline_trained(str(tmp_path), KEY, "tokens")
    assert outline is not None
    if entry is None:
        load.read_model(outline, str(tmp_path), KEY)
        return
    monkeypatch.delitem(language.SCALES, entry)
    with pytest.raises(UserError, match=r"is a granite whose logits cannot be computed .* they differ by"):
        load.read_model(outline, str(tmp_path), KEY)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@each
def test_logits_of_half_precision_are_compared_as_they_are(kind: str, dtype: torch.dtype) -> None:
    made = model(kind).to(dtype)
    language.check_logits(made, "x")
    with torch.no_grad():
        made.get_output_embeddings().weight.mul_(0)
        made.get_output_embeddings().register_forward_hook(lambda _, __, output: output + 1)
    with pytest.raises(UserError, match=r"cannot be computed"):
        language.check_logits(made, "x")


def test_the_decoder_of_a_class_that_names_another_base() -> None:
    config = Llama4TextConfig(
        **_BERT,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size_mlp=24,
        moe_layers=[],
        pad_token_id=0,
        attention_chunk_size=8,
    )
    made = AutoModelForCausalLM.from_config(config).eval()
    assert made.base_model is made
    taught, given = of_model(made), inputs((7, 5))
    given["input_ids"] %= 50
    with torch.no_grad():
        answer = taught.require(Need(True, frozenset({0, 1})))(given)
        torch.testing.assert_close(logits(answer), own_logits(made, given))
    assert answer.hidden[1].shape == (2, 7, 16)


def test_a_model_that_fails_is_named() -> None:
    made = model("llama")
    made.config.vocab_size = 900  # the ids of the trial lie beyond its embedding
    with pytest.raises(UserError, match=r"x is a llama that cannot read two tokens: index out of range"):
        language.check_logits(made, "x")


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    made = BertLMHeadModel(BertConfig(**_BERT, is_decoder=True)).eval()
    with pytest.raises(UserError, match=r"x is a bert whose logits cannot be computed"):  # a layer before its head
        language.check_logits(made, "x")
    made = BertGenerationDecoder(BertGenerationConfig(**_BERT))
    with pytest.raises(UserError, match=r"depend on the tokens that follow"):
        language.check_logits(made, "x")


# --- tokenizers and preflight ----------------------------------------------------------------------------------------


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    model("llama").save_pretrained(tmp_path)
    reader = tokenizer()
    reader.pad_token, reader.eos_token = None, "w7"
    reader.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no padding token"):
        load.load_tokenizer(str(tmp_path))
    assert load.load_tokenizer(str(tmp_path), kind="tokens").pad_token == "w7"


def test_preflight_reads_a_folder_as_a_language_model(tmp_path: Path) -> None:
    LlamaModel(model("untied", vocab_size=160).config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"student\.path=.*lack lm_head\.weight"):
        check_answers(None, str(tmp_path), "student.path", tokenizer(), "tokens")
    check_answers(None, str(tmp_path), "student.path", tokenizer(), "labels")
    model("gpt2", vocab_size=160).save_pretrained(tmp_path)
    check_answers(None, str(tmp_path), "student.path", tokenizer(), "tokens")


def test_damaged_weights_are_named() -> None:
    taught = encoder("llama", vocab_size=160)
    check_numbers(taught, tokenizer(), "teacher.path=x")
    with torch.no_grad():
        taught.model.model.norm.weight[3] = torch.inf
    with pytest.raises(UserError, match=r"teacher\.path=x: model\.norm\.weight holds what is no number"):
        check_numbers(taught, tokenizer(), "teacher.path=x")
