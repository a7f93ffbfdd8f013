"""Causal language models: answers from final states and the head equal the model's own logits; padding, taps."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.tiny_models import tokenizer
from tiny_language import CONFIGS, LAYERS, TOKENS, VOCAB, encoder, inputs, logits, model, own_logits
from torch import nn

from mangakd.core.outputs import TARGETS
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.export.hf import save_student
from mangakd.models import language, load

KEY = "teacher.path"
ALL = Need(True, frozenset(range(LAYERS + 1)), frozenset(range(1, LAYERS + 1)))
each = pytest.mark.parametrize("kind", CONFIGS)


@contextlib.contextmanager
def calls(module: nn.Module) -> Iterator[list[Any]]:
    """The calls of a module within."""
    seen: list[Any] = []
    hook = module.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


# --- answers ---------------------------------------------------------------------------------------------------------


@each
def test_logits_from_states_equal_the_models_own(kind: str) -> None:
    taught, given = encoder(kind), inputs()
    with torch.no_grad(), calls(taught.model.get_output_embeddings()) as head:
        answer = taught(given)
        assert not head, "the head builds (B, T, V)"
        expected = own_logits(taught.model, given)
    torch.testing.assert_close(logits(answer), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (int(given[TARGETS].sum()), VOCAB) and expected.std() > 0.1
    assert answer.logits is None and answer.vector is None and taught.spec.head == Head("tokens", VOCAB)


@each
def test_gradients_equal_those_of_the_models_own_logits(kind: str) -> None:
    taught, given = encoder(kind).train(), inputs()
    found = []
    for answer in (lambda: logits(taught(given)), lambda: own_logits(taught.model, given)):
        torch.manual_seed(1)  # dropout
        taught.zero_grad()
        answer().logsumexp(-1).sum().backward()
        found.append({name: p.grad.clone() for name, p in taught.named_parameters() if p.grad is not None})
    assert found[0].keys() == {name for name, _ in taught.named_parameters()}
    for name, gradient in found[1].items():
        torch.testing.assert_close(
            found[0][name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()), msg=name
        )


@each
def test_padding_changes_no_answer(kind: str) -> None:
    taught = encoder(kind)
    with torch.no_grad():
        plain, padded = logits(taught(inputs())), logits(taught(inputs(width=17)))
        alone = logits(taught(inputs((11,))))
    torch.testing.assert_close(padded, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain[: len(alone)], alone, rtol=1e-5, atol=1e-5)


def test_states_at_padding_and_other_tokens_do_not_matter() -> None:
    taught, given = encoder("untied"), inputs(width=14)

    def poison(_: nn.Module, __: Any, output: Any) -> None:
        read = torch.zeros_like(given[TARGETS])
        read[:, :-1] = given[TARGETS][:, 1:]
        output.last_hidden_state = output.last_hidden_state.masked_fill(~read[..., None], torch.nan)

    with torch.no_grad():
        expected = logits(taught(given))
    taught.model.model.register_forward_hook(poison)
    found = logits(taught(given))
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in taught.parameters())


def test_nothing_is_cached_and_nothing_but_targets_is_answered() -> None:
    taught, given = encoder("llama"), inputs()
    kept: list[Any] = []
    taught.model.model.register_forward_hook(lambda _, __, output: kept.append(output.past_key_values))
    given[TARGETS][1] = False
    answer = taught(given).tokens
    assert kept == [None] and len(answer.states) == given[TARGETS].sum()
    with pytest.raises(KeyError):
        taught({name: value for name, value in given.items() if name != TARGETS})


def test_every_token_that_follows_one_is_a_target_of_a_trial() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])
    assert language.every_token(mask).tolist() == [[False, True, True, False], [False, False, False, True]]


def test_a_token_of_the_end_that_pads_learns_as_a_text() -> None:
    """padding_idx would drop the gradient of its embedding."""
    taught, given = encoder("untied", pad_token_id=2), inputs()
    given["input_ids"][0, 3] = 2
    logits(taught(given)).square().sum().backward()
    assert taught.model.model.embed_tokens.weight.grad[2].abs().sum() > 0


# --- taps ------------------------------------------------------------------------------------------------------------


@each
def test_taps_equal_eager_attention_and_output_hidden_states(kind: str) -> None:
    taught, given = encoder(kind), inputs()
    load.keep_soft_cap(taught.model)
    mask = given["attention_mask"]
    with torch.no_grad():
        answer = logits(taught(given))
        tapped = taught.require(ALL)(given)
        torch.testing.assert_close(logits(tapped), answer, rtol=1e-5, atol=1e-5)
        taught.require(Need(answer=True)).model.config._attn_implementation = "eager"
        raw = taught.model.base_model(
            input_ids=given["input_ids"],
            attention_mask=mask,
            output_hidden_states=True,
            output_attentions=True,
            use_cache=False,
        )
    here = mask.bool()
    for layer in range(LAYERS + 1):
        torch.testing.assert_close(tapped.hidden[layer][here], raw.hidden_states[layer][here], rtol=1e-5, atol=1e-5)
    for layer in range(1, LAYERS + 1):
        maps = tapped.attention[layer].log_maps(mask).exp().transpose(1, 2)[here]
        torch.testing.assert_close(maps, raw.attentions[layer - 1].transpose(1, 2)[here], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_maps_see_no_later_token_without_padding_either(kind: str) -> None:
    given = inputs((9, 9))
    with torch.no_grad():
        tapped = encoder(kind).require(ALL)(given)
    later = torch.ones(9, 9).triu(1).bool()
    if kind == "mistral":
        later |= torch.ones(9, 9).tril(-4).bool()
    for tap in tapped.attention.values():
        maps = tap.log_maps(given["attention_mask"]).exp()
        assert maps[..., later].max() < 1e-29 and maps[..., ~later].min() >= 0
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4, 9))


def test_a_cap_of_attention_scores_is_kept(tmp_path: Path) -> None:
    """SDPA leaves it out without a word."""
    made = model("gemma2")
    assert made.config._attn_implementation == "sdpa"
    taught = load.encoder(made, TOKENS, "teacher", tokenizer())
    given = inputs()
    with torch.no_grad():
        expected = own_logits(made, given)
        made.config._attn_implementation = "sdpa"
        assert (own_logits(made, given) - expected).abs().max() > 0.01
        made.config._attn_implementation = "eager"
        tapped = taught.require(ALL)(given)
    torch.testing.assert_close(logits(tapped), expected, rtol=1e-5, atol=1e-5)
    save_student(made, tokenizer(), tmp_path / "student", "card")
    with torch.no_grad():
        torch.testing.assert_close(own_logits(made, given), expected, rtol=0, atol=0)
