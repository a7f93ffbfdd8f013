"""Targets that encoder–decoders write: as token by token by hand, whatever stands beside a row in its batch."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tiny_seq2seq import CONFIGS, VOCAB, encoder, model

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.models.generation import Sampling
from mangakd.models.seq2seq_writer import Seq2SeqWriter

each = pytest.mark.parametrize("kind", ["t5", "t5 untied", "bart", "marian"])
MOST = 10
WRITER = Seq2SeqWriter(tuple(range(1, 40)), 0, VOCAB)  # many tokens end a text, so that lengths differ
RNG = np.random.default_rng(1)
SOURCES = [[*RNG.integers(4, VOCAB, n).tolist(), 1] for n in (3, 9, 5, 12, 4, 1)]


def log_probs(built: Any, source: list[int], text: list[int]) -> torch.Tensor:
    """(N + 1, V): of the tokens of a text and of the one after it."""
    decoder = torch.tensor([[built.config.decoder_start_token_id, *text]])
    raw = built(input_ids=torch.tensor([source]), decoder_input_ids=decoder)
    return torch.log_softmax(raw.logits[0], -1)


@each
@torch.no_grad()
def test_the_most_probable_tokens_are_written_until_one_ends_the_text(kind: str) -> None:
    built = model(kind)
    texts = WRITER.write(built, SOURCES, Sampling(max_new_tokens=MOST))
    for source, text in zip(SOURCES, texts, strict=True):
        ids: list[int] = []
        while len(ids) < MOST and not set(ids) & set(WRITER.stops):
            ids.append(int(log_probs(built, source, ids)[-1].argmax()))
        assert text.ids == ids and text.ended == (ids[-1] in WRITER.stops)
    assert len({len(text.ids) for text in texts}) > 1 or kind == "marian"


@each
@torch.no_grad()
def test_a_text_does_not_end_before_its_minimum(kind: str) -> None:
    built, least = model(kind), 4
    short = WRITER.write(built, SOURCES, Sampling(max_new_tokens=MOST))
    texts = WRITER.write(built, SOURCES, Sampling(max_new_tokens=MOST, min_new_tokens=least))
    for source, text in zip(SOURCES, texts, strict=True):
        ids: list[int] = []
        while len(ids) < MOST and not set(ids) & set(WRITER.stops):
            scores = log_probs(built, source, ids)[-1]
            if len(ids) < least:
                scores[[*WRITER.stops]] = -torch.inf
            ids.append(int(scores.argmax()))
        assert text.ids == ids and len(ids) > least
    assert kind == "marian" or any(len(text.ids) <= least for text in short)
    seeds = [*range(len(SOURCES))]
    drawn = WRITER.write(built, SOURCES, Sampling(1.0, 0.9, MOST, least), seeds)
    beams = WRITER.beams(built, SOURCES, 4, 3, MOST, min_new_tokens=least)
    assert all(len(text.ids) > least for text in (*drawn, *itertools.chain(*beams)))


@each
@torch.no_grad()
def test_a_text_depends_on_its_source_alone(kind: str) -> None:
    built, seeds = model(kind), [*range(len(SOURCES))]
    drawn = Sampling(1.0, 0.9, MOST)
    together = WRITER.write(built, SOURCES, drawn, seeds)
    assert together == [WRITER.write(built, [s], drawn, [i])[0] for i, s in enumerate(SOURCES)]
    assert together != WRITER.write(built, SOURCES, drawn, seeds[::-1])
    beams = WRITER.beams(built, SOURCES, 4, 3, MOST)
    assert beams == [WRITER.beams(built, [source], 4, 3, MOST)[0] for source in SOURCES]
    assert beams[::-1] == WRITER.beams(built, SOURCES[::-1], 4, 3, MOST, tokens=60)
    assert WRITER.beams(built, SOURCES, 1, 1, MOST) == [
        [text] for text in WRITER.write(built, SOURCES, Sampling(max_new_tokens=MOST))
    ]


@torch.no_grad()
def test_beams_are_the_best_of_all_texts_where_all_are_looked_at() -> None:
    """A vocabulary of 5 and texts of 2 tokens, with more beams than there are texts."""
    built = model("t5 untied", vocab_size=5)
    writer = Seq2SeqWriter((1,), 0, 5)
    sources = [[2, 3, 1], [4, 1]]
    found = writer.beams(built, sources, 25, 4, 2)
    for source, texts in zip(sources, found, strict=True):
        every = [[1], *([a, b] for a, b in itertools.product((0, 2, 3, 4), range(5)))]
        scores = {tuple(t): float(log_probs(built, source, t[:-1])[range(len(t)), t].mean()) for t in every}
        best = sorted(scores, key=lambda text: -scores[text])[:4]
        assert [tuple(text.ids) for text in texts] == best


def test_what_the_model_says_of_writing_does_not_count_and_stays() -> None:
    taught = encoder("bart").train()
    taught.require(Need(True, frozenset({1, 4})))
    built = taught.model
    expected = WRITER.write(model("bart"), SOURCES, Sampling(max_new_tokens=MOST))
    built.generation_config.update(num_beams=3, repetition_penalty=2.0, min_length=7, forced_bos_token_id=9)
    before = built.generation_config.to_dict()
    assert WRITER.write(built, SOURCES, Sampling(max_new_tokens=MOST)) == expected
    assert built.generation_config.to_dict() == before and built.training


def test_what_cannot_be_written_is_refused() -> None:
    built = model("bart")
    for sources, message in (([[]], "a source is empty"), ([[5] * 41], "a source of 41 tokens does not fit into 40")):
        with pytest.raises(UserError, match=message):
            WRITER.write(built, sources)
    with pytest.raises(UserError, match="best=5 must be a whole number from 1 to the number of beams, 4"):
        WRITER.beams(built, SOURCES, 4, 5, MOST)
    with pytest.raises(UserError, match="min_new_tokens=11 must be a whole number from 0 to max_new_tokens=10"):
        Sampling(max_new_tokens=10, min_new_tokens=11)
    assert all(len(text.ids) <= 40 for text in WRITER.write(built, [[5] * 40], Sampling(max_new_tokens=90)))
    assert CONFIGS
