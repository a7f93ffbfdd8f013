"""Runs over sequences of similar length give what one run over the padded batch gives: outputs and gradients."""

import pytest
import tiny
import torch
from torch import Tensor

from mangakd.core.requires import Need
from mangakd.models import by_length
from mangakd.models.encoder import Encoder

LENGTHS = [3, 30, 4, 28, 3, 5, 29, 31, 4, 2]


def batch(left: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    places = torch.arange(max(LENGTHS))
    mask = (places < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(5, 20, mask.shape, generator=generator) * mask
    return {"input_ids": ids.flip(1) if left else ids, "attention_mask": mask.flip(1) if left else mask}


def answer_and_gradient(encoder: Encoder, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Answers, hidden states at tokens, and the gradient of a sum of both."""
    encoder.zero_grad()
    outputs = encoder(inputs)
    states = outputs.hidden[1] * outputs.mask[:, :, None]
    (outputs.answer.square().sum() + states.square().sum()).backward()
    return [outputs.answer, states, *(p.grad for p in encoder.parameters() if p.grad is not None)]


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_several_runs_equal_one(left: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny.encoder(1).require(Need(answer=True, hidden=frozenset({1}))).eval().double()
    calls = []
    encoder.model.register_forward_hook(lambda *_: calls.append(1))
    apart = answer_and_gradient(encoder, batch(left))
    runs = len(calls)
    monkeypatch.setattr(by_length, "GAIN", 1.0)
    whole = answer_and_gradient(encoder, batch(left))
    assert len(calls) - runs == 1
    # Padding on the left is before the tokens, so a run keeps it.
    assert runs == 1 if left else runs > 1
    for one, other in zip(apart, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_runs_cost_fewer_tokens_and_hold_each_sequence_once() -> None:
    parts = by_length.runs(batch()["attention_mask"])
    assert sorted(torch.cat([rows for rows, _ in parts]).tolist()) == list(range(len(LENGTHS)))
    assert all(max(LENGTHS[i] for i in rows) == longest for rows, longest in parts)
    assert sum(len(rows) * longest for rows, longest in parts) < 0.7 * len(LENGTHS) * max(LENGTHS)


def test_one_run_where_padding_is_small() -> None:
    assert not by_length.runs(torch.ones(8, 20, dtype=torch.long))
    assert not by_length.runs(torch.ones(1, 20, dtype=torch.long))


def test_a_sequence_without_tokens_has_a_place() -> None:
    mask = batch()["attention_mask"]
    mask[0] = 0
    assert sorted(torch.cat([rows for rows, _ in by_length.runs(mask)]).tolist()) == list(range(len(LENGTHS)))


def test_inputs_of_another_shape_are_not_divided() -> None:
    """A table of positions (1, T) that all sequences share has no rows to choose from."""
    encoder = tiny.encoder(1).eval()
    shared = {"position_ids": torch.arange(max(LENGTHS))[None]}
    torch.testing.assert_close(encoder(batch() | shared).answer, encoder(batch()).answer)
