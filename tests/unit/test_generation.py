"""Batched generation: a row's text is that of the row alone, and the model is afterwards as it was before."""

from typing import Any

import numpy as np
import pytest
import torch

from mangakd.core.errors import UserError
from mangakd.models.generation import Sampling, Writer, Written
from tests.chat_samples import chat_tokenizer
from tests.tiny_language import CONFIGS, VOCAB, model

WRITER = Writer((2,), 0, VOCAB)
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(3, VOCAB, size).tolist() for size in (5, 1, 9, 3, 9, 2)]
SEEDS = [7, 1, 9, 4, 5, 6]
HOT = Sampling(temperature=9.0, max_new_tokens=8)
DRAWN = Sampling(temperature=1.5, top_p=0.9, max_new_tokens=8)


def by_hand(built: Any, prompt: list[int], new: int, stop: int = 2) -> Written:
    """Greedy, with the whole text read at each step."""
    ids = list(prompt)
    for _ in range(new):
        with torch.no_grad():
            ids.append(int(built(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == stop:
            return Written(ids[len(prompt) :], True)
    return Written(ids[len(prompt) :], False)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_writes_what_each_row_writes_alone(kind: str) -> None:
    built = model(kind)
    together = WRITER.write(built, PROMPTS, Sampling(max_new_tokens=8))
    assert together == [by_hand(built, prompt, 8) for prompt in PROMPTS]
    drawn = WRITER.write(built, PROMPTS, HOT, SEEDS)
    assert drawn == [WRITER.write(built, [p], HOT, [s])[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    assert len({tuple(text.ids) for text in drawn}) > 3


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_drawn_texts_depend_on_prompt_and_seed_alone(tokens: int) -> None:
    built = model("llama")
    together = WRITER.write(built, PROMPTS, DRAWN, SEEDS, tokens)
    assert together == [WRITER.write(built, [p], DRAWN, [s])[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    assert together[::-1] == WRITER.write(built, PROMPTS[::-1], DRAWN, SEEDS[::-1], tokens)
    assert together != WRITER.write(built, PROMPTS, DRAWN, [seed + 1 for seed in SEEDS])


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_draws_follow_the_distribution(top_p: float) -> None:
    built, count = model("llama"), 4000
    with torch.no_grad():
        scores = built(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1] / 4
    probabilities = scores.softmax(-1).double()
    ranked, order = probabilities.sort(descending=True)
    kept = order[ranked.cumsum(0) - ranked < top_p]
    expected = torch.zeros_like(probabilities).index_copy(0, kept, probabilities[kept] / probabilities[kept].sum())
    sampling = Sampling(temperature=4.0, top_p=top_p, max_new_tokens=1)
    texts = WRITER.write(built, [PROMPTS[0]] * count, sampling, range(count))
    shares = torch.bincount(torch.tensor([text.ids[0] for text in texts]), minlength=VOCAB) / count
    assert (shares - expected).abs().max() < 4 * 0.5 / count**0.5
    assert not shares[expected == 0].any()


def test_a_text_ends_with_any_of_its_stops() -> None:
    built = model("llama")
    free = Writer((), 0, VOCAB).write(built, PROMPTS, Sampling(max_new_tokens=12))
    assert not any(text.ended for text in free) and all(len(text.ids) == 12 for text in free)
    stops = (free[0].ids[3], free[2].ids[5])
    for text, whole in zip(
        Writer(stops, 0, VOCAB).write(built, PROMPTS, Sampling(max_new_tokens=12)), free, strict=True
    ):
        places = [i for i, token in enumerate(whole.ids) if token in stops]
        assert text == Written(whole.ids[: places[0] + 1] if places else whole.ids, bool(places))


def test_a_padding_token_may_be_the_stop() -> None:
    built = model("llama")
    assert Writer((2,), 2, VOCAB).write(built, PROMPTS, Sampling(max_new_tokens=12)) == WRITER.write(
        built, PROMPTS, Sampling(max_new_tokens=12)
    )


def test_only_the_stops_of_a_generation_config_are_read() -> None:
    built = model("llama")
    expected = WRITER.write(built, PROMPTS)
    built.generation_config.update(
        do_sample=True, temperature=9.0, repetition_penalty=3.0, min_new_tokens=20, eos_token_id=[11, 12], max_length=6
    )
    settings = built.generation_config.to_dict()
    assert WRITER.write(built, PROMPTS) == expected
    assert built.generation_config.to_dict() == settings
    tokenizer = chat_tokenizer("chatml")
    writer = Writer.of(built, tokenizer, [13])
    assert writer == Writer((2, 11, 12, 13), tokenizer.pad_token_id, len(tokenizer))


def test_no_token_beyond_the_tokenizer_is_written() -> None:
    texts = Writer((2,), 0, 20).write(model("llama"), PROMPTS, Sampling(temperature=5.0), SEEDS)
    assert max(token for text in texts for token in text.ids) == 19


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_text_ends_at_the_models_last_position(kind: str) -> None:
    built, writer = model(kind), Writer((), 0, VOCAB)
    prompts = [RNG.integers(3, VOCAB, size).tolist() for size in (63, 4, 60, 58, 60)]
    texts = writer.write(built, prompts, Sampling(max_new_tokens=5))
    assert [len(text.ids) for text in texts] == [1, 5, 4, 5, 4]
    assert texts == [by_hand(built, prompt, len(text.ids)) for prompt, text in zip(prompts, texts, strict=True)]
    for prompt, word in (([5] * 64, "64 tokens leaves none of 64 positions"), ([], "empty")):
        with pytest.raises(UserError, match=word):
            writer.write(built, [[5], prompt])


def test_prompt_and_text_keep_to_a_length() -> None:
    built, writer, sampling = model("gpt2"), Writer((), 0, VOCAB), Sampling(max_new_tokens=6)
    texts = writer.write(built, PROMPTS, sampling, longest=10)
    assert [len(text.ids) for text in texts] == [5, 6, 1, 6, 1, 6]
    free = writer.write(built, PROMPTS, sampling)
    assert [text.ids for text in texts] == [whole.ids[: len(text.ids)] for text, whole in zip(texts, free, strict=True)]


def test_the_model_is_as_before() -> None:
    built = model("gpt2").train()
    built.transformer.h[1].eval().requires_grad_(False)
    built.forward = built.forward  # of the instance, as wrappers have it
    built.transformer._compiled_call_impl = compiled = lambda *_, **__: pytest.fail("compiled code was run")
    modes = [module.training for module in built.modules()]
    config, state = built.config.to_dict(), torch.get_rng_state()
    texts = WRITER.write(built, PROMPTS, DRAWN, SEEDS)
    assert texts == WRITER.write(built, PROMPTS, DRAWN, SEEDS)  # no dropout
    assert [module.training for module in built.modules()] == modes
    assert built.config.to_dict() == config and torch.equal(torch.get_rng_state(), state)
    assert built.transformer._compiled_call_impl is compiled and torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in built.parameters())


def test_logits_that_are_no_numbers_stop_nothing() -> None:
    built = model("llama")
    with torch.no_grad():
        built.lm_head.weight[3] = float("nan")
    assert [len(text.ids) for text in Writer((), 0, VOCAB).write(built, PROMPTS, DRAWN, SEEDS)] == [8] * 6


def test_batches_keep_to_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    built, shapes, done = model("llama"), [], []
    generate = type(built).generate

    def counted(self: Any, **options: Any) -> Any:
        shapes.append(tuple(options["input_ids"].shape))
        return generate(self, **options)

    monkeypatch.setattr(type(built), "generate", counted)
    WRITER.write(built, PROMPTS, Sampling(max_new_tokens=8), tokens=2 * (9 + 8), advance=done.append)
    assert shapes == [(2, 9), (2, 5), (2, 2)] and done == [2, 2, 2]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        Sampling(**options)


def test_an_answer_does_not_end_before_its_minimum() -> None:
    built, stops = model("llama"), tuple(range(1, 60))
    writer = Writer(stops, 0, VOCAB)
    for prompt, text in zip(PROMPTS, writer.write(built, PROMPTS, Sampling(0.0, 1.0, 9, 3)), strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 9 and not set(ids[len(prompt) :]) & {*stops}:
            with torch.no_grad():
                scores = built(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            if len(ids) < len(prompt) + 3:
                scores[[*stops]] = -torch.inf
            ids.append(int(scores.argmax()))
        assert text.ids == ids[len(prompt) :] and len(text.ids) > 3
    assert any(len(text.ids) <= 3 for text in writer.write(built, PROMPTS, Sampling(max_new_tokens=9)))
