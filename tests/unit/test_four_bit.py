"""A base in 4 bits under adapters: refused where bitsandbytes cannot train, and merged into the same rounded weights.

bitsandbytes computes on a CPU, too, so what mangakd does with it is tested here; its CUDA kernels are not.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_language
import torch
from contract.tiny_models import config, model, tokenizer
from torch import nn
from transformers import BertConfig, BertForSequenceClassification
from transformers.pytorch_utils import Conv1D

from mangakd.core.errors import UserError
from mangakd.core.spec import ModelSpec
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.models import four_bit, lora
from mangakd.models.encoder import Encoder
from mangakd.models.heads import entries
from mangakd.models.lora import Lora
from mangakd.models.trial import two_texts
from mangakd.training.fit import fit

FOUR = Lora(2, four_bit=True)


@pytest.mark.parametrize(
    ("device", "strategy", "layers", "words"),
    [
        ("cpu", "one", [], "needs a CUDA GPU: .* this profile's device is cpu"),
        ("mps", "one", [], "needs a CUDA GPU: .* this profile's device is mps"),
        ("cuda", "fsdp", [], "does not work with hardware.strategy=fsdp"),
    ],
)
def test_places_without_4_bit_weights(device: str, strategy: str, layers: list[Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        four_bit.check(device, strategy, layers)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs bitsandbytes, .*pip install 'mangakd\[qlora\]'"):
        four_bit.check("cuda", "one", [])


def test_layers_that_bitsandbytes_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit.importlib.util, "find_spec", lambda name: True)
    four_bit.check("cuda", "ddp", [nn.Linear(2, 2)])
    with pytest.raises(UserError, match="quantises linear layers, and this model has Conv1D"):
        four_bit.check("cuda", "one", [nn.Linear(2, 2), Conv1D(2, 2)])


@pytest.mark.parametrize(("base", "words"), [("8bit", "must be 4bit or null"), ("4bit", "set student.lora.rank=16")])
def test_options_that_are_refused(base: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Lora.of(None, base)
    assert Lora.of({"rank": 4}, "4bit") == Lora(4, four_bit=True)


def wide() -> Encoder:
    """bitsandbytes' kernels for CPUs want multiples of 64."""
    torch.manual_seed(2)
    sizes = BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    sizes.update(entries(tiny.HEAD))
    built = BertForSequenceClassification(sizes)
    return Encoder(built, ModelSpec.from_config(sizes, "wide", tiny.HEAD, "v"))


def test_adapters_learn_on_4_bits_and_merge_into_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes: pip install 'mangakd[qlora]'")
    base = wide()
    torch.manual_seed(6)
    student = lora.adapt(copy.deepcopy(base), FOUR)
    lora.store_base(student, torch.float32)
    student.to("cpu")  # bitsandbytes quantises here
    query = student.model.bert.encoder.layer[0].attention.self.query.base_layer.weight
    assert query.dtype == torch.uint8 and query.numel() == 64 * 64 // 2
    plan = tiny.plan(tmp_path, epochs=1, rows=40)
    fit(student, tiny.bound(student, None, hard=HardLabelLoss()), None, replace(plan, keep="last"))
    learned = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    assert {name.removeprefix("student.") for name in learned} == student.adapters.names  # type: ignore[union-attr]
    given = two_texts(tokenizer())
    given = {name: value % 50 for name, value in given.items()}
    with torch.no_grad():
        expected = student.eval()(given).answer
        full = lora.adapt(copy.deepcopy(base), Lora(2))
        full.load_state_dict(student.adapters.learned(student.state_dict()), strict=False)  # type: ignore[union-attr]
        unrounded = full.eval()(given).answer
        merged = lora.merge(base, student, FOUR, given)(given).answer
    torch.testing.assert_close(merged, expected, rtol=1e-3, atol=1e-4)
    assert (merged - expected).abs().max() < 0.1 * (unrounded - expected).abs().max()


def test_language_models_keep_their_head(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes: pip install 'mangakd[qlora]'")
    built = tiny_language.model("llama")
    names = lora.target_modules(built, None)
    four_bit.quantise(built, names)
    from bitsandbytes.nn import Linear4bit

    assert {name for name, each in built.named_modules() if isinstance(each, Linear4bit)} == names.keys()
    assert built.lm_head.weight is built.model.embed_tokens.weight and "lm_head" not in names


def test_round_weights_is_what_the_layers_hold() -> None:
    functional = pytest.importorskip(
        "bitsandbytes.functional", reason="4-bit weights need bitsandbytes: pip install 'mangakd[qlora]'"
    )
    built = model(config("bert"))
    four, name = copy.deepcopy(built), "bert.encoder.layer.0.intermediate.dense"
    four_bit.quantise(four, [name])
    four.to("cpu")
    four_bit.round_weights(built, [name])
    weight = four.get_submodule(name).weight
    torch.testing.assert_close(
        built.get_submodule(name).weight.data, functional.dequantize_4bit(weight.data, weight.quant_state)
    )
