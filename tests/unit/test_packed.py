"""Sequences of a batch in rows without padding: equal answers and gradients, and no sequence sees another one."""

from typing import Any

import pytest
import torch
from tiny_language import CONFIGS, encoder, inputs, logits, of_model
from transformers import AutoModelForCausalLM, BloomConfig, FalconH1Config

from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS
from mangakd.core.requires import Need
from mangakd.models import packed

each = pytest.mark.parametrize("kind", CONFIGS)
attentions = pytest.mark.parametrize("attention", ["sdpa", "eager"])
LENGTHS = (11, 7, 4, 2, 9)


def test_rows_are_filled_and_places_name_each_token() -> None:
    """By hand: in rows of 5, the sequence of 4 comes first, then 3 with 2."""
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0], [6, 7, 8, 9]])
    given = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    rows, places = packed.pack(given, one_row=False)
    assert rows["input_ids"].tolist() == [[6, 7, 8, 9], [1, 2, 3, 0], [4, 5, 0, 0]]
    wide = {name: torch.nn.functional.pad(value, (0, 0, 0, 1)) for name, value in given.items()}
    wide["input_ids"][3, :1], wide["attention_mask"][3, :1] = 10, 1
    rows, places = packed.pack(wide, one_row=False)
    assert rows["input_ids"].tolist() == [[6, 7, 8, 9], [1, 2, 3, 10], [4, 5, 0, 0]]
    assert rows["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 0, 0]]
    assert rows["input_ids"].flatten()[places[ids.ne(0).nonzero(as_tuple=True)]].tolist() == [*range(1, 10)]
    one, _ = packed.pack(wide, one_row=True)
    assert one["input_ids"].tolist() == [[6, 7, 8, 9, 1, 2, 3, 4, 5, 10]]


@each
@attentions
def test_answers_and_gradients_are_those_of_padded_sequences(kind: str, attention: str) -> None:
    given = inputs(LENGTHS)
    each = [encoder(kind).attend_with(attention).pack(packing) for packing in (False, True)]
    answers = [logits(model(given)) for model in each]
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-5, atol=1e-5)
    grown = [torch.autograd.grad(answer.square().sum(), [*model.parameters()]) for answer, model in zip(answers, each)]  # noqa: B905
    for plain, own in zip(*grown, strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


@each
@attentions
def test_another_sequences_text_never_changes_a_logit(kind: str, attention: str) -> None:
    """Bit for bit, in the same rows; in one row as well, as flash attention has it."""
    taught, given = encoder(kind).attend_with(attention).pack(), inputs(LENGTHS)
    other = {**given, "input_ids": given["input_ids"].clone()}
    other["input_ids"][1:] = (other["input_ids"][1:] + 5) % 80 + 3
    own = int(given[TARGETS][0].sum())
    with torch.no_grad():
        assert torch.equal(logits(taught(given))[:own], logits(taught(other))[:own])
        states = []
        for batch in (given, other):
            rows, places = packed.pack(batch, one_row=True)
            raw = taught._bodies[0](**rows, use_cache=False).last_hidden_state
            states.append(packed.at_targets(raw, places, batch[TARGETS]))
    assert torch.equal(states[0][:own], states[1][:own]) and not torch.equal(states[0], states[1])


def test_losses_on_layers_get_every_token() -> None:
    """Packed rows would hold other tokens than the mask says."""
    taught, given = encoder("llama").pack(), inputs(LENGTHS)
    outputs = taught.require(Need(answer=True, hidden=frozenset({2})))(given)
    assert outputs.hidden[2].shape[:2] == outputs.mask.shape == given["input_ids"].shape


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BloomConfig(vocab_size=90, hidden_size=16, n_layer=2, n_head=2), "needs a model that reads positions"),
        (
            FalconH1Config(
                vocab_size=90, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                intermediate_size=32, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1,
            ),
            r"packed sequences see each other \(their states change by",
        ),
    ],
    ids=["bloom", "falcon_h1"],
)  # fmt: skip
def test_models_whose_sequences_would_see_each_other_are_refused(config: Any, reason: str) -> None:
    """Falcon H1 has a state that goes on from one sequence into the next."""
    with pytest.raises(UserError, match=reason):
        of_model(AutoModelForCausalLM.from_config(config)).pack()
