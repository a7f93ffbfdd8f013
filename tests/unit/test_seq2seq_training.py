"""Ways to train an encoder–decoder: adapters, recomputed activations, frozen parts."""

import logging
from pathlib import Path

import pytest
import torch
from contract.tiny_models import tokenizer
from tiny_language import logits
from tiny_seq2seq import CONFIGS, FIRST, SECOND, encoder, inputs, own_logits
from transformers import AutoModelForSeq2SeqLM

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.models import adapter_folder, load, lora, seq2seq
from mangakd.runs.checks.models import attention
from mangakd.training.recompute import recomputing
from mangakd.training.stages import Stage

LAYERS = frozenset(range(FIRST + SECOND + 1))


@pytest.mark.parametrize("kind", ["t5 untied", "bart"])
def test_adapters_learn_in_both_stacks_and_merge(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANGAKD_CACHE", str(tmp_path / "cache"))
    student, given = encoder(kind), inputs()
    before = logits(student(given)).detach()
    lora.adapt(student, lora.Lora(2))
    torch.testing.assert_close(logits(student(given)), before, rtol=1e-5, atol=1e-5)
    names = {name for name, p in student.named_parameters() if p.requires_grad}
    layers = [*seq2seq.layers(student.model)[0], *seq2seq.layers(student.model)[1]]
    assert all(any(p.requires_grad for p in layer.parameters()) for layer in layers)
    assert not any("lm_head" in name or "shared" in name or "embed_tokens" in name for name in names)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name in names:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    assert float((logits(student(given)) - before).detach().abs().max()) > 0.01
    merged = lora.merge(
        encoder(kind), student, lora.Lora(2), {name: given[name] for name in ("input_ids", "attention_mask")}
    )
    torch.testing.assert_close(logits(merged(given)), logits(student(given)), rtol=1e-4, atol=1e-4)
    assert seq2seq.is_tied(merged.model) == ("untied" not in kind)
    encoder(kind).save_pretrained(tmp_path / "base")
    lora.save_adapter(student, tokenizer(), str(tmp_path / "base"), tmp_path / "adapter")
    place = adapter_folder.merged(tmp_path / "adapter", "adapter", "student.path", lambda path, key: path)
    found = AutoModelForSeq2SeqLM.from_pretrained(place).eval()
    torch.testing.assert_close(own_logits(found, given), logits(merged(given)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_recomputed_activations_give_the_same_gradients(kind: str) -> None:
    gradients = []
    for active in (False, True):
        student = encoder(kind, dropout_rate=0.2, dropout=0.2).train().require(Need(True, LAYERS))
        with recomputing(student, active):
            torch.manual_seed(3)
            answer = student(inputs())
            (logits(answer).square().sum() + sum(each.square().sum() for each in answer.hidden.values())).backward()
        gradients.append({name: p.grad for name, p in student.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[1][name], each) for name, each in gradients[0].items())


@pytest.mark.parametrize("kind", ["t5 untied", "bart"])
def test_frozen_parts_do_not_learn(kind: str) -> None:
    student = encoder(kind).train()
    with Stage("first", frozen=["embeddings", 1, FIRST + SECOND]).freezing(student):
        logits(student(inputs())).sum().backward()
        first, second = seq2seq.layers(student.model)
        for layer, learns in ((first[0], False), (first[1], True), (second[0], True), (second[-1], False)):
            assert all((p.grad is not None) == learns for p in layer.parameters())
        assert student.model.get_input_embeddings().weight.grad is None
        assert (student.model.get_output_embeddings().weight.grad is None) == ("untied" not in kind)
    with pytest.raises(UserError, match=rf"this student has embeddings and layers 1…{FIRST + SECOND}"):
        Stage("first", frozen=[FIRST + SECOND + 1]).check_frozen(student.spec.layers)


def test_an_attention_that_t5_has_not_is_told(caplog: pytest.LogCaptureFixture) -> None:
    shapes = {kind: load.shape(CONFIGS[kind](), kind, "tokens") for kind in ("t5", "bart")}
    with caplog.at_level(logging.WARNING, "mangakd"):
        attention("flash_attention_2", shapes)
        attention("eager", shapes)
    assert [record.getMessage() for record in caplog.records] == [
        "hardware.attention=flash_attention_2 changes nothing for the t5, a t5, whose attention is eager alone in transformers."
    ]
