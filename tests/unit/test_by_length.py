"""Runs over sequences of similar length give what one run over the padded batch gives: outputs and gradients."""

import pytest
import tiny
import torch
from torch import Tensor

from mangakd.core.outputs import LENGTHS
from mangakd.core.requires import Need
from mangakd.models import by_length
from mangakd.models.encoder import Encoder

TOKENS = [3, 30, 4, 28, 3, 5, 29, 31, 4, 2]


def batch() -> dict[str, Tensor]:
    lengths = torch.tensor(TOKENS)
    mask = (torch.arange(max(TOKENS)) < lengths[:, None]).long()
    ids = torch.randint(5, 20, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    return {"input_ids": ids, "attention_mask": mask, LENGTHS: lengths}


def answer_and_gradient(encoder: Encoder, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Answers, hidden states at tokens, and the gradient of a sum of both."""
    encoder.zero_grad()
    outputs = encoder(inputs)
    states = outputs.hidden[1] * outputs.mask[:, :, None]
    (outputs.answer.square().sum() + states.square().sum()).backward()
    return [outputs.answer, states, *(p.grad for p in encoder.parameters() if p.grad is not None)]


def test_several_runs_equal_one() -> None:
    encoder = tiny.encoder(1).require(Need(answer=True, hidden=frozenset({1}))).eval().double()
    calls: list[int] = []
    encoder.model.register_forward_hook(lambda *_: calls.append(1))
    apart = answer_and_gradient(encoder, batch())
    assert len(calls) > 1
    calls.clear()
    # Rows of one sequence are batched by their length, so they are computed at once, with the dropout of one run.
    whole = answer_and_gradient(encoder, {name: value for name, value in batch().items() if name != LENGTHS})
    assert len(calls) == 1
    for one, other in zip(apart, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_runs_cost_fewer_tokens_and_hold_each_sequence_once() -> None:
    parts = by_length.parts(batch())
    assert sorted(torch.cat([rows for rows, _ in parts]).tolist()) == list(range(len(TOKENS)))
    assert all(max(TOKENS[i] for i in rows) == longest for rows, longest in parts)
    assert sum(len(rows) * longest for rows, longest in parts) < 0.7 * len(TOKENS) * max(TOKENS)


@pytest.mark.parametrize("tokens", [[20] * 8, [20]], ids=["alike", "one"])
def test_one_run_where_padding_is_small(tokens: list[int]) -> None:
    assert not by_length.parts({LENGTHS: torch.tensor(tokens)})


def test_a_loss_on_attention_maps_gets_one_run() -> None:
    encoder = tiny.encoder(1).require(Need(attention=frozenset({1}))).eval()
    inputs = batch()
    assert encoder(inputs).attention[1].query.shape[2] == max(TOKENS)
