"""Models with an encoder and a decoder: answers equal the model's own, padding changes nothing, heads stay untied, layers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import logits
from tiny_seq2seq import AFTER, CONFIGS, FIRST, SECOND, VOCAB, encoder, inputs, model, own_logits
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.tokens import TokensLoss
from mangakd.models import seq2seq

each = pytest.mark.parametrize("kind", CONFIGS)
LAYERS = frozenset(range(FIRST + SECOND + 1))


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_sequence_becomes_a_source_and_decoder_inputs_shifted_once() -> None:
    ids = torch.tensor([[5, 6, 7, 1, 8, 9, 1, 0], [0, 0, 5, 1, 8, 1, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 0, 0]])
    targets = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0]]).bool()  # padding is never one
    parts = seq2seq.split({"input_ids": ids, "attention_mask": mask, TARGETS: targets}, start=2, pad=3)
    assert parts.ids.tolist() == [[5, 6, 7, 1], [5, 1, 3, 3]]
    assert parts.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert parts.decoder.tolist() == [[2, 8, 9], [2, 8, 1]]  # the last target is predicted, and read by nobody
    assert parts.there.tolist() == [[True, True, True], [True, True, False]]
    states = torch.arange(6.0).view(2, 3, 1)
    assert parts.at_targets(states)[..., 0].tolist() == [[0, 0, 0, 0, 0, 1, 2, 0], [0, 0, 0, 0, 3, 4, 0, 0]]


@each
def test_logits_equal_the_models_own_with_inputs_written_by_hand(kind: str) -> None:
    taught, given = encoder(kind), inputs()
    with torch.no_grad():
        answer, expected = taught(given), own_logits(taught.model, given)
    assert expected.shape == (10, VOCAB) and expected.std() > 0.1  # 4 + 5 + 1: first and last target are counted
    torch.testing.assert_close(logits(answer), expected, rtol=1e-5, atol=1e-5)
    assert taught.spec.head == Head("tokens", VOCAB, source=True)
    assert (taught.spec.layers, taught.spec.encoder_layers) == (FIRST + SECOND, FIRST)


@each
def test_gradients_equal_those_of_transformers_own_loss(kind: str) -> None:
    """Of rows without padding, where a mean over labels is a mean over targets."""
    taught, given = encoder(kind), inputs(((6, 4), (6, 4)))
    loss = TokensLoss(alpha=0.0)
    loss.bind(taught.spec, None)
    own = loss(taught(given), None, {"next": given["input_ids"][given[TARGETS]]})
    labels = given["input_ids"][:, 6:].contiguous()
    raw = taught.model(
        input_ids=given["input_ids"][:, :6], labels=labels, decoder_input_ids=_shifted(taught.model, labels)
    )
    assert float(own.sum / own.count) == pytest.approx(float(raw.loss), rel=1e-5)
    found = []
    for value in (own.sum / own.count, raw.loss):
        taught.zero_grad()
        value.backward()
        found.append({name: p.grad.clone() for name, p in taught.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == {n for n, p in taught.named_parameters() if p.requires_grad}
    for name, gradient in found[1].items():
        near = 1e-6 + 1e-5 * float(gradient.abs().max())  # a bias of keys has a gradient of 0
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-4, atol=near, msg=name)


def _shifted(built: Any, labels: Tensor) -> Tensor:
    start = torch.full_like(labels[:, :1], built.config.decoder_start_token_id)
    return torch.cat([start, labels[:, :-1]], 1)


@each
def test_padding_of_both_sides_changes_nothing(kind: str) -> None:
    """Padding of the batch, on either side, and that of sources and targets beside longer ones."""
    taught = encoder(kind)
    need = Need(True, LAYERS)
    given, wide = inputs(), inputs(width=19)
    left = {name: torch.roll(value, 4, 1) for name, value in wide.items()}
    with torch.no_grad():
        plain = taught.require(need)(given)
        for padded, place in ((wide, slice(12)), (left, slice(4, 16))):
            answer = taught(padded)
            torch.testing.assert_close(logits(answer), logits(plain), rtol=0, atol=1e-6)
            for layer in LAYERS:
                found, expected = (each.hidden[layer] for each in (answer, plain))
                torch.testing.assert_close(found[:, place][:, : expected.shape[1]], expected, rtol=0, atol=1e-6)
        alone = taught(inputs(((7, 4),)))
    torch.testing.assert_close(logits(plain)[:4], logits(alone), rtol=1e-5, atol=3e-6)


@each
def test_poison_at_padding_reaches_no_answer_and_no_gradient(kind: str) -> None:
    taught = encoder(kind).require(Need(True, LAYERS))
    given = inputs(width=14)
    poisoned = {**given, "input_ids": given["input_ids"].masked_fill(given["attention_mask"] == 0, VOCAB - 1)}
    poisoned[TARGETS] = given[TARGETS] | (given["attention_mask"] == 0)
    answers = [taught(each) for each in (given, poisoned)]
    for answer in answers:  # states of padding that are no numbers
        _, last = seq2seq.bodies(taught.model)
        hook = last.register_forward_hook(_poison)
        broken = taught(poisoned)
        hook.remove()
        torch.testing.assert_close(logits(broken), logits(answer), rtol=0, atol=0)
        assert all(torch.equal(broken.hidden[layer], answer.hidden[layer]) for layer in LAYERS)
    taught.zero_grad()
    (logits(broken).sum() + sum(each.sum() for each in broken.hidden.values())).backward()
    assert all(p.grad.isfinite().all() for p in taught.parameters() if p.grad is not None)


def _poison(_: Any, __: Any, output: Any) -> None:
    targets = torch.tensor([4, 5, 1])
    late = torch.arange(output.last_hidden_state.shape[1]) >= targets[:, None]
    output.last_hidden_state = output.last_hidden_state.masked_fill(late[..., None], float("nan"))


def test_a_row_without_targets_answers_nothing() -> None:
    taught, given = encoder("t5"), inputs(((3, 2), (4, 0)))
    assert logits(taught(given)).shape == (2, VOCAB)
    given[TARGETS][:] = False
    assert logits(taught(given)).shape == (0, VOCAB)


# --- layers ----------------------------------------------------------------------------------------------------------


@each
def test_hidden_states_stand_at_the_tokens_of_their_stack(kind: str) -> None:
    """As transformers lists them: the encoder's at the source, the decoder's at the targets, 0 elsewhere."""
    taught, given = encoder(kind).require(Need(True, LAYERS)), inputs(((6, 4), (6, 4)))
    labels = given["input_ids"][:, 6:].contiguous()
    with torch.no_grad():
        answer = taught(given)
        raw = taught.model(
            input_ids=given["input_ids"][:, :6],
            decoder_input_ids=_shifted(taught.model, labels),
            output_hidden_states=True,
        )
    for layer in LAYERS:
        states, decodes = answer.hidden[layer], layer > FIRST
        own = raw.decoder_hidden_states[layer - FIRST] if decodes else raw.encoder_hidden_states[layer]
        torch.testing.assert_close(states[:, 6:] if decodes else states[:, :6], own, rtol=1e-5, atol=1e-5)
        assert not (states[:, :6] if decodes else states[:, 6:]).any()
        assert torch.equal(answer.mask_of(layer), given[TARGETS] == decodes)


def test_hidden_states_of_a_taught_student_count_each_token_once() -> None:
    """By hand: the mean over the pairs of a token's own stack, divided by all tokens."""
    teacher, student = encoder("t5", 1), encoder("t5", 2, num_decoder_layers=2)
    loss = HiddenLoss(layer_map=[[0, 0], [1, 2], [2, 1], [4, 5]], projection=False)
    loss.bind(student.spec, teacher.spec)
    given = inputs()
    answers = [
        one.require(need)(given) for one, need in ((student, loss.requires.student), (teacher, loss.requires.teacher))
    ]
    output = loss(*answers, {})
    total = 0.0
    for row in range(3):
        for place in range(given["attention_mask"].shape[1]):
            pairs = [(4, 5)] if given[TARGETS][row, place] else [(0, 0), (1, 2), (2, 1)]
            gaps = [answers[0].hidden[s][row, place] - answers[1].hidden[t][row, place] for s, t in pairs]
            total += sum(gap.square().mean().item() for gap in gaps) / len(pairs)
    assert float(output.sum / output.count) == pytest.approx(total / 25, rel=1e-5)


def test_layer_maps_stay_within_a_stack() -> None:
    teacher, student = encoder("t5").spec, encoder("t5", num_layers=1, num_decoder_layers=2).spec
    loss = HiddenLoss()
    loss.bind(student, teacher)
    assert loss.pairs == ((0, 0), (1, 2), (2, 4), (3, 5))  # 3 layers of a decoder to 2: m · 3 / 2, rounded half up
    for pairs in ([[1, 3]], [[2, 2]], [[0, 3]]):
        with pytest.raises(
            UserError, match=r"losses\.hidden\.layer_map joins layers of an encoder with layers of a decoder"
        ):
            named(HiddenLoss(layer_map=pairs)).bind(student, teacher)


def named(loss: Any) -> Any:
    loss.name = "hidden"
    return loss


def test_attention_and_packing_are_refused() -> None:
    with pytest.raises(UserError, match="t5 has an encoder and a decoder, whose attention is not read"):
        encoder("t5").require(Need(True, attention=frozenset({1})))
    with pytest.raises(UserError, match=r"hardware\.packing=true needs a decoder alone; t5 has an encoder"):
        encoder("t5").pack()


# --- heads -----------------------------------------------------------------------------------------------------------


@each
def test_copies_of_a_model_keep_its_head(kind: str, tmp_path: Path) -> None:
    """A deep copy, a checkpoint that is read into it, and a folder: transformers' own reading answers alike."""
    taught = encoder(kind)
    tied = seq2seq.is_tied(taught.model)
    assert tied == ("untied" not in kind)
    other = copy.deepcopy(encoder(kind, 1))
    assert seq2seq.is_tied(other.model) == tied
    other.load_state_dict(taught.state_dict())
    taught.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
    given = inputs()
    expected = logits(taught(given))
    for built in (other.model, again):
        assert torch.equal(built.get_output_embeddings().weight, taught.model.get_output_embeddings().weight)
        torch.testing.assert_close(own_logits(built, given), expected, rtol=1e-5, atol=1e-5)


def test_a_head_that_answers_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in CONFIGS:
        seq2seq.check_logits(model(kind), "teacher.path=x")
    built = model("t5")
    built.config.scale_decoder_outputs = False  # and the model itself scales no more
    seq2seq.check_logits(built, "teacher.path=x")
    monkeypatch.setattr(
        built.lm_head, "forward", lambda states: built.shared(states.argmax(-1)) @ built.shared.weight.T
    )
    with pytest.raises(UserError, match=r"teacher\.path=x is a t5 whose logits cannot be computed from the states"):
        seq2seq.check_logits(built, "teacher.path=x")


def test_a_decoder_without_a_start_token_and_other_configs_are_refused() -> None:
    config = CONFIGS["t5"]()
    for start, what in ((None, "no decoder_start_token_id"), (VOCAB, f"decoder_start_token_id={VOCAB}")):
        config.decoder_start_token_id = start
        with pytest.raises(
            UserError, match=rf"the config of key=x has {what}, .*padding token for T5 and Marian \(here 0\)"
        ):
            seq2seq.check_start(config, "key=x")
    two = CONFIGS["marian"]()
    two.share_encoder_decoder_embeddings = False
    with pytest.raises(UserError, match="key=x is a marian with one vocabulary for the source and another"):
        seq2seq.check_config(two, "key=x")
    assert AFTER.source
