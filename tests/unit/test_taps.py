"""Taps: what they record is what eager attention and output_hidden_states give, and recording changes nothing.

Tolerances are for fp32 with weights large enough to make attention maps far from uniform.
"""

import copy
import functools
import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.tiny_models import LABELS, config, encoder, inputs, tokenizer
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from mangakd.core.outputs import Outputs
from mangakd.core.requires import Need
from mangakd.export.hf import save_student
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.relation import RelationLoss
from mangakd.models.encoder import Encoder

TAPPED = ("bert", "distilbert", "modernbert", "roberta", "electra")
FALLBACK = ("deberta-v2", "albert", "mpnet")
ALL = Need(True, frozenset(range(4)), frozenset({1, 2, 3}))
SOME = Need(True, frozenset({0, 2}), frozenset({3}))
each_tapped = pytest.mark.parametrize("kind", TAPPED)
each = pytest.mark.parametrize("kind", TAPPED + FALLBACK)


def eager(taught: Encoder, given: dict[str, Tensor]) -> Any:
    """What Hugging Face itself answers with eager attention and all lists."""
    other = copy.deepcopy(taught.model).eval()
    other.config._attn_implementation = "eager"
    with torch.no_grad():
        return other(**given, output_attentions=True, output_hidden_states=True)


def valid_rows(maps: Tensor, mask: Tensor) -> Tensor:
    return maps.transpose(1, 2)[mask.bool()]


@each
def test_taps_equal_eager_attention_and_output_hidden_states(kind: str) -> None:
    taught, given = encoder(config(kind)), inputs()
    mask = given["attention_mask"]
    expected = eager(taught, given)
    with torch.no_grad():
        found = taught.require(ALL)(given)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=5e-6)
    for layer in range(4):
        ours, theirs = found.hidden[layer][mask.bool()], expected.hidden_states[layer][mask.bool()]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-6)
    for layer in (1, 2, 3):
        maps = found.attention[layer].log_maps(mask).exp()
        theirs = expected.attentions[layer - 1]
        torch.testing.assert_close(valid_rows(maps, mask), valid_rows(theirs, mask), rtol=0, atol=2e-6)
        assert theirs[0].max() > 1.5 / 9, "uniform maps prove nothing"


@each_tapped
def test_taps_leave_the_logits_as_they_are(kind: str) -> None:
    taught, given = encoder(config(kind)), inputs()
    with torch.no_grad():
        plain = taught.require(Need(answer=True))(given).logits
        torch.testing.assert_close(taught.require(ALL)(given).logits, plain, rtol=0, atol=0)


@each_tapped
def test_maps_in_training_are_clean_of_dropout(kind: str) -> None:
    taught, given = encoder(config(kind, attention_dropout=0.5)), inputs()
    mask = given["attention_mask"]
    taught.require(Need(True, attention=frozenset({1, 2})))
    torch.manual_seed(1)
    with torch.no_grad():
        calm, lively = taught.eval()(given), taught.train()(given)
    assert (calm.logits - lively.logits).abs().max() > 1e-2, "no dropout happened"
    # Layer 1 read the same input both times; layer 2 did not, but its maps are whole distributions still.
    clean, trained = calm.attention[1].log_maps(mask), lively.attention[1].log_maps(mask)
    torch.testing.assert_close(valid_rows(trained.exp(), mask), valid_rows(clean.exp(), mask), rtol=0, atol=2e-6)
    sums = valid_rows(lively.attention[2].log_maps(mask).exp(), mask).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)


# --- padding ---------------------------------------------------------------------------------------------------------


def bound(loss: LossCallback, student: Encoder, teacher: Encoder) -> LossCallback:
    torch.manual_seed(0)
    loss.bind(student.spec, teacher.spec)
    student.require(loss.requires.student)
    teacher.require(loss.requires.teacher)
    return loss


LOSSES: dict[str, Any] = {
    "scores": lambda: AttentionLoss(),
    "kl": lambda: AttentionLoss(compare="kl"),
    "mse": lambda: AttentionLoss(compare="mse"),
    "hidden": lambda: HiddenLoss(),
    "relation": lambda: RelationLoss(),
}


@each_tapped
@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_neither_losses_nor_gradients(kind: str, name: str) -> None:
    student, teacher = encoder(config(kind, layers=2), seed=1), encoder(config(kind, layers=3))
    loss = bound(LOSSES[name](), student, teacher)
    found = []
    for width in (9, 14):
        given = inputs(width=width)
        with torch.no_grad():
            target = teacher(given)
        answer = student(given)
        output = loss(answer, target, {})
        student.zero_grad(set_to_none=True)
        (output.sum / output.count).backward()
        gradients = {key: p.grad.clone() for key, p in student.named_parameters() if p.grad is not None}
        found.append((answer, output, gradients))
    (one, plain, before), (two, padded, after) = found
    torch.testing.assert_close(two.logits, one.logits, rtol=1e-5, atol=1e-5)
    for layer, hidden in one.hidden.items():
        here = one.mask.bool()
        torch.testing.assert_close(two.hidden[layer][:, :9][here], hidden[here], rtol=1e-5, atol=1e-5)
    assert padded.count == plain.count and plain.sum > 0
    torch.testing.assert_close(padded.sum, plain.sum, rtol=1e-5, atol=1e-6)
    assert before.keys() == after.keys() and before
    for key, gradient in before.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(after[key], gradient, rtol=1e-4, atol=1e-6 + 1e-5 * scale, msg=key)


def test_a_window_over_padding_alone_leaves_finite_gradients() -> None:
    student, teacher = encoder(config("modernbert", layers=2), seed=1), encoder(config("modernbert", layers=2))
    loss = bound(AttentionLoss(compare="kl"), student, teacher)
    given = inputs(width=14, left=True)  # the first padded rows of a local layer see padded columns only
    loss(student(given), teacher(given), {}).sum.backward()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)


# --- what is recorded, and taking taps off ---------------------------------------------------------------------------


def traces(taught: Encoder) -> int:
    """Hooks and taps that are left in a model."""
    modules = list(taught.model.modules())
    hooks = [hook for m in modules for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    ours = sum(isinstance(hook, functools.partial) for hook in hooks)  # transformers leaves hooks of its own
    return ours + sum(getattr(m, "mangakd_tap", None) is not None for m in modules)


@each
def test_only_what_is_needed_is_recorded_and_taps_come_off(kind: str) -> None:
    taught, given = encoder(config(kind)), inputs()
    own = taught.model.config._attn_implementation
    found = taught.require(SOME)(given)
    assert set(found.hidden) == {0, 2} and set(found.attention) == {3}
    if kind in TAPPED:
        assert traces(taught) == 3
    assert not taught._hidden and not taught._attention, "the last batch's activations must not stay in memory"
    found = taught.require(Need(answer=True))(given)
    assert not found.hidden and not found.attention and traces(taught) == 0
    assert taught.model.config._attn_implementation == own and not taught._ask


@each_tapped
def test_requiring_keeps_the_mode_and_the_random_state(kind: str) -> None:
    taught = encoder(config(kind, dropout=0.1)).train()
    state = torch.get_rng_state()
    taught.require(ALL)
    assert all(module.training for module in taught.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_lost_hooks_are_an_error() -> None:
    taught, given = encoder(config("bert")).require(SOME), inputs()
    for module in taught.model.modules():
        module._forward_hooks.clear()
    with pytest.raises(RuntimeError, match=r"bert 0 recorded nothing for layers \[2\]"):
        taught(given)
    taught.require(SOME).model.config._attn_implementation = "sdpa"
    with pytest.raises(RuntimeError, match=r"recorded nothing for layers \[3\]"):
        taught(given)


@pytest.mark.parametrize("kind", FALLBACK)
def test_fallback_says_so(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = encoder(config(kind)).require(ALL)(inputs())
    assert "falling back to eager attention" in caplog.text
    assert ("hidden states are all kept" in caplog.text) == (kind == "albert")
    assert found.attention[1].query is None and found.attention[1].probs is not None


# --- copies ----------------------------------------------------------------------------------------------------------


def same(one: Outputs, two: Outputs) -> bool:
    mask = one.mask
    pairs = [(one.logits, two.logits), *((one.hidden[i], two.hidden[i]) for i in one.hidden)]
    pairs += [(one.attention[i].log_maps(mask), two.attention[i].log_maps(mask)) for i in one.attention]
    return all(torch.equal(a, b) for a, b in pairs)


def pickled(taught: Encoder) -> Encoder:
    file = io.BytesIO()
    pickle.dump(taught, file)
    file.seek(0)
    return pickle.load(file)


@pytest.mark.parametrize(("kind", "copied"), [*((k, copy.deepcopy) for k in TAPPED + FALLBACK), ("bert", pickled)])
def test_a_copy_has_its_own_taps(kind: str, copied: Any) -> None:
    first, given = encoder(config(kind)).require(ALL), inputs()
    with torch.no_grad():
        before = first(given)
        second = copied(first)
        assert same(second(given), before)
        for parameter in second.parameters():
            parameter.mul_(0.5)
        changed = second(given)
        assert not same(changed, before) and not first._hidden and not first._attention
        assert same(first(given), before)
        second.require(Need(answer=True))
        assert same(first(given), before), "taking the copy's taps off must leave the original's"


# --- saved and in other precisions -----------------------------------------------------------------------------------


@each
def test_a_saved_student_is_a_plain_hugging_face_folder(kind: str, tmp_path: Path) -> None:
    student, given = encoder(config(kind)).require(ALL), inputs()
    with torch.no_grad():
        expected = student(given).logits
        save_student(student.model, tokenizer(), tmp_path / "student", "a card")
        assert not [p for p in (tmp_path / "student").glob("*.json") if "mangakd" in p.read_text()]
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
        assert loaded.config._attn_implementation in ("sdpa", "eager")
        torch.testing.assert_close(loaded(**given).logits, expected, rtol=1e-5, atol=5e-6)
    saved = json.loads((tmp_path / "student" / "config.json").read_text())
    assert [saved["id2label"][str(i)] for i in range(len(LABELS))] == list(LABELS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@each_tapped
def test_half_precision(kind: str, dtype: torch.dtype) -> None:
    student, teacher = encoder(config(kind, layers=2), seed=1), encoder(config(kind))
    given = inputs()
    mask = given["attention_mask"]
    loss = bound(AttentionLoss(compare="kl"), student, teacher)
    with torch.no_grad():
        exact = student(given)
    student, teacher = student.to(dtype), teacher.to(dtype)
    found = student(given)
    assert found.logits.dtype == dtype and found.attention[1].query.dtype == dtype  # type: ignore[union-attr]
    maps = found.attention[1].log_maps(mask).exp()
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, exact.attention[1].log_maps(mask).exp(), rtol=0, atol=0.05)
    with torch.no_grad():
        target = teacher(given)
    loss(found, target, {}).sum.backward()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)
