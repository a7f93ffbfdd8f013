"""LoRA on single models: which layers get adapters, what learns, what is merged, and which options are refused."""

import copy
import pathlib
from typing import Any

import pytest
import tiny_language
import torch
from contract.tiny_models import HEAD, VECTOR, config, encoder, inputs, tokenizer
from torch import nn

from mangakd.core.errors import UserError
from mangakd.models import lora
from mangakd.models.encoder import Encoder
from mangakd.models.lora import Lora
from mangakd.models.trial import two_texts

pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
KINDS = ("bert", "roberta", "electra", "distilbert", "modernbert", "deberta-v2", "albert", "mpnet")


def learned(student: Encoder, seed: int = 1) -> Encoder:
    """As if adapters and head had learned: everything that may learn has other numbers."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return student


def answer(student: Encoder, given: Any) -> torch.Tensor:
    with torch.no_grad():
        outputs = student.eval()(student.of_texts(given))
    return outputs.answer if outputs.tokens is None else tiny_language.logits(outputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", [HEAD, VECTOR], ids=["labels", "vector"])
def test_adapters_start_as_the_base_learn_beside_it_and_merge(kind: str, head: Any) -> None:
    base = encoder(config(kind), head)
    given, before = inputs(), answer(base, inputs())
    student = lora.adapt(copy.deepcopy(base), Lora(2))
    assert torch.equal(answer(student, given), before)
    learns = [name for name, each in student.named_parameters() if each.requires_grad]
    heads = [name for name in learns if "lora_" not in name]
    assert set(heads) == {f"model.{name}" for name in lora.head_parameters(base.model, head.kind)}
    assert bool(heads) == (head is HEAD)
    assert set(learns) == student.adapters.names
    adapted = answer(learned(student), given)
    assert (adapted - before).abs().max() > 1e-2
    merged = lora.merge(base, student, Lora(2), two_texts(tokenizer()))
    torch.testing.assert_close(answer(merged, given), adapted, rtol=1e-5, atol=1e-5)
    assert merged.adapters is None and not any("lora" in name for name in merged.state_dict())


@pytest.mark.parametrize("kind", tiny_language.CONFIGS)
def test_language_models_learn_in_every_linear_layer_but_the_head(kind: str) -> None:
    base = tiny_language.encoder(kind)
    before = answer(base, tiny_language.inputs())
    student = lora.adapt(copy.deepcopy(base), Lora(2))
    assert all("lora_" in name for name in student.adapters.names)
    stack = next(each for each in student.model.modules() if isinstance(each, nn.ModuleList))
    matrices = [name for name, each in stack.named_parameters() if each.dim() == 2 and "lora_" not in name]
    assert len(student.adapters.names) == 2 * len(matrices)
    adapted = answer(learned(student), tiny_language.inputs())
    assert (adapted - before).abs().max() > 1e-2
    merged = lora.merge(base, student, Lora(2), two_texts(tokenizer()))
    assert torch.allclose(answer(merged, tiny_language.inputs()), adapted, rtol=1e-4, atol=1e-4)


def test_a_base_in_bf16_is_merged_from_the_base_in_fp32() -> None:
    base = encoder(config("bert"))
    student = lora.adapt(copy.deepcopy(base), Lora(2, alpha=2))
    lora.store_base(student, torch.bfloat16)
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in student.model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    learned(student)
    query = "bert.encoder.layer.0.attention.self.query"
    down, up = (student.model.get_parameter(f"{query}.lora_{part}.default.weight") for part in "AB")
    expected = base.model.get_parameter(f"{query}.weight") + up @ down
    merged = lora.merge(base, student, Lora(2, alpha=2), two_texts(tokenizer()))
    torch.testing.assert_close(merged.model.get_parameter(f"{query}.weight"), expected.detach(), rtol=0, atol=1e-6)


def test_another_base_is_not_merged() -> None:
    student = lora.adapt(encoder(config("bert")), Lora(2))
    with pytest.raises(UserError, match="is not the one that they were trained on"):
        lora.merge(encoder(config("bert"), seed=5), student, Lora(2), two_texts(tokenizer()))


def test_target_modules_are_named_by_their_last_parts() -> None:
    model = encoder(config("bert")).model
    assert {name.rpartition(".")[2] for name in lora.target_modules(model, ["query", "value"])} == {"query", "value"}
    assert len(lora.target_modules(model, ["query", "value"])) == 6


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["querry"], r"names querry, .* is a bert: it is no linear layer of it; did you mean query\? Its .*dense, key"),
        (["classifier"], r"classifier, .*it learns whole already"),
        (["word_embeddings"], r"word_embeddings, which is bert\.embeddings\.word_embeddings: adapters on embeddings"),
    ],
)
def test_targets_that_cannot_have_adapters(names: list[str], words: str) -> None:
    model = encoder(config("bert")).model
    with pytest.raises(UserError, match=words):
        lora.target_modules(model, names, lora.head_parameters(model, "labels"))


@pytest.mark.parametrize("kind", ["llama", "untied"])
@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_adapters_on_the_head_of_a_language_model_are_refused(kind: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"names {name}, .*the head of a language model are not supported"):
        lora.target_modules(tiny_language.encoder(kind).model, [name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank=0 must be a whole number"),
        ({"rank": 2.5}, r"rank=2\.5 must be a whole number"),
        ({"rank": 4, "alpha": 0}, "alpha=0 must be a number above 0"),
        ({"rank": 4, "dropout": 1}, "dropout=1 must be from 0"),
        ({"rank": 4, "target_modules": "query"}, "target_modules=query must be a list"),
        ({"rank": 4, "target_modules": []}, r"target_modules=\[\] must be a list"),
        ({"rnk": 4}, r"has rnk, which it does not know; did you mean rank\?"),
        ({"alpha": 4}, "student.lora.alpha needs student.lora.rank"),
        (16, "student.lora=16 must be a dictionary: student.lora.rank=16"),
    ],
)
def test_options_that_are_refused(options: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Lora.of(options)


def test_no_rank_is_no_adapter() -> None:
    assert Lora.of(None) is None and Lora.of({"rank": None, "alpha": None, "dropout": 0.0}) is None


def test_peft_loads_the_folder_of_adapters(tmp_path: pathlib.Path) -> None:
    from peft import PeftModel

    base = encoder(config("roberta"))
    student = learned(lora.adapt(copy.deepcopy(base), Lora(2)))
    expected = answer(student, inputs())
    lora.save_adapter(student, tokenizer(), "some/base", tmp_path)
    with torch.no_grad():
        base.model.classifier.out_proj.weight.zero_()
    loaded = PeftModel.from_pretrained(base.model, tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs()).logits, expected, rtol=1e-5, atol=1e-5)
    assert loaded.peft_config["default"].base_model_name_or_path == "some/base"
