"""Batches that the student writes: which, from what prompts, how they are counted and what is learnt from them."""

from typing import Any

import pytest
import tiny_language
import torch
from own_texts import TOKENS, author, run, split
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import OWN_TEXT, TARGETS, Batch
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.data.sampler import MicroBatch
from mangakd.losses.loss_set import LossSet
from mangakd.losses.tokens import TokensLoss
from mangakd.models.encoder import Encoder
from mangakd.models.generation import Sampling
from mangakd.tasks.response.own_text import last_answers
from mangakd.teachers.local import LocalTeacher
from mangakd.training.on_policy import OnPolicy

ROWS = [3, 0, 7, 5]
SCALE = {"rows": 1.0, "sequences": 1.0, "tokens": 1.0, "cells": 1.0, "targets": 1.0}


def alone(value: Tensor) -> Tensor:
    return value


def batch(rows: list[int] = ROWS, share: float = 1.0) -> Batch:
    return split(8, 1)[MicroBatch(rows, {**SCALE, "rows": share})]


def answers(inputs: dict[str, Tensor]) -> list[list[int]]:
    return [ids[targets].tolist() for ids, targets in zip(inputs["input_ids"], inputs[TARGETS], strict=True)]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_targets_are_what_the_student_writes_after_the_prompts(kind: str) -> None:
    student, given = tiny_language.encoder(kind, 2).train(), batch()
    new = run()(student, given, 0, alone)
    before, inputs = given["student"], new["student"]
    starts = last_answers(before[TARGETS])
    assert new["teacher"] is inputs and new[OWN_TEXT] and student.model.training
    for old, ids, start in zip(before["input_ids"], inputs["input_ids"], starts, strict=True):
        assert torch.equal(old[:start], ids[:start])
    texts = answers(inputs)
    assert texts != answers(before) and new["next"].tolist() == [token for text in texts for token in text]
    assert [len(text) for text in texts] != [9] * 4 or all(2 not in text for text in texts)
    lengths = inputs["attention_mask"].sum(1)
    assert [start + len(text) for start, text in zip(starts, texts, strict=True)] == lengths.tolist()
    assert all(mask.tolist() == [1] * sum(mask) + [0] * (len(mask) - sum(mask)) for mask in inputs["attention_mask"])
    # Read by the training's forward pass, the greedy text is what is most probable at each of its positions.
    greedy = run(temperature=0)(student.eval(), given, 0, alone)
    best = tiny_language.logits(student(greedy["student"])).argmax(-1)
    assert torch.equal(best, greedy["next"])


def test_a_text_depends_on_seed_step_and_prompt_alone() -> None:
    student = tiny_language.encoder("llama", 2)

    def texts(rows: list[int], step: int, seed: int = 3) -> dict[int, list[int]]:
        new = run(seed=seed)(student, batch(rows), step, alone)
        return dict(zip(rows, answers(new["student"]), strict=True))

    together = texts(ROWS, 4)
    assert together == texts(ROWS, 4) == {row: texts([row], 4)[row] for row in ROWS}
    assert together != texts(ROWS, 5) and together != texts(ROWS, 4, seed=4)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (1.0, 60, 60), (0.25, 5, 25)])
def test_the_share_of_steps(share: float, least: int, most: int) -> None:
    given, write = batch(), author()
    calls = []

    def counted(student: Encoder, each: Batch, sampling: Sampling, seeds: Any) -> Any:
        calls.append(1)
        return write(student, each, sampling, seeds)

    student, own = tiny_language.encoder("llama", 2), run(share=share, max_new_tokens=1)
    own = type(own)(own.options, counted, own.seed)
    new = [own(student, given, step, alone) for step in range(60)]
    assert least <= len(calls) <= most and sum(each[OWN_TEXT] for each in new) == len(calls)
    assert all(each[name] is given[name] for each in new if not each[OWN_TEXT] for name in given)
    # Another rank or micro-batch of a step holds other rows.
    other = batch([1, 2])
    assert [own(student, other, s, alone)[OWN_TEXT] for s in range(60)] == [each[OWN_TEXT] for each in new]


def test_only_the_last_answer_of_a_conversation_is_written() -> None:
    targets = torch.tensor([[0, 0, 1, 1, 0, 0, 1, 0], [0, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1]]).bool()
    assert last_answers(targets) == [6, 1, 7]
    inputs = {"input_ids": torch.arange(3, 27).view(3, 8), "attention_mask": torch.ones(3, 8).long(), TARGETS: targets}
    given = {**batch([0, 1, 2]), "student": inputs, "teacher": inputs}
    new = run()(tiny_language.encoder("llama", 2), given, 0, alone)["student"]
    assert new["input_ids"][0, :6].tolist() == [3, 4, 5, 6, 7, 8] and not new[TARGETS][0, :6].any()
    assert all(text for text in answers(new))


def test_a_text_keeps_to_the_length_of_the_data() -> None:
    new = run(longest=10, max_new_tokens=30)(tiny_language.encoder("llama", 2), batch(list(range(8))), 0, alone)
    assert new["student"]["input_ids"].shape[1] == 10


@pytest.mark.parametrize("shares", [(1.0, 1.0), (1.2, 0.8), (2.0, 0.0)])
def test_a_step_is_divided_by_what_was_written_on_all_ranks(shares: tuple[float, float]) -> None:
    """shares: scale of the rows of two ranks; the second may have a row only to take part."""
    student, sent = tiny_language.encoder("llama", 2), []

    def collect(value: Tensor) -> Tensor:
        sent.append(value.clone())
        return torch.ones_like(value)

    given = [batch([3, 0, 7], shares[0]), batch([5], shares[1])]
    for each in given:
        run()(student, each, 0, collect)
    new = [run()(student, each, 0, lambda value: sent[0] + sent[1]) for each in given]
    counts = [len(each["next"]) if share else 0 for each, share in zip(new, shares, strict=True)]
    for each, own in zip(new, counts, strict=True):
        assert each["scale"]["targets"] == pytest.approx(2 * own / sum(counts))
        assert each["scale"]["rows"] in shares
    tokens = [int(each["student"]["attention_mask"].sum()) if s else 0 for each, s in zip(new, shares, strict=True)]
    assert new[0]["scale"]["tokens"] == pytest.approx(2 * tokens[0] / sum(tokens))


def test_taps_are_as_before_and_hold_nothing_of_the_writing() -> None:
    student = tiny_language.encoder("llama", 2)
    need = Need(True, frozenset({1}), frozenset({2}))
    student.require(need)
    given = batch()
    expected = student(given["student"])
    new = run()(student, given, 0, alone)
    assert student.need == need and not any(student._records.values()) and not student._hidden
    again = student(given["student"])
    torch.testing.assert_close(again.hidden[1], expected.hidden[1])
    assert student(new["student"]).hidden[1].shape[:2] == new["student"]["input_ids"].shape
    other = run()(tiny_language.encoder("llama", 2), given, 0, alone)
    assert torch.equal(other["next"], new["next"])


def test_own_text_is_learnt_from_the_teacher_alone() -> None:
    student, teacher = tiny_language.encoder("llama", 2), LocalTeacher(tiny_language.encoder("llama", 1), TOKENS)
    teacher.prepare(torch.device("cpu"), Need(answer=True))
    new = run()(student, batch(), 0, alone)

    def loss(alpha: float, given: Batch) -> Any:
        losses = LossSet({"tokens": TokensLoss(alpha=alpha)})
        losses.bind(ModelSpec("s", 3, 16, 4, TOKENS), ModelSpec("t", 3, 16, 4, TOKENS))
        return losses(student(given["student"]), teacher(given), given, 0.0)

    own = loss(0.3, new)
    torch.testing.assert_close(own.total, loss(1.0, {**new, OWN_TEXT: False}).total)
    assert own.total > 0 and own.logs["tokens/own_text"] == 1 and "tokens/own_text" not in loss(0.3, batch()).logs
    assert loss(0.3, {**new, OWN_TEXT: False}).total != own.total


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"share": 1.5}, "distill.lmbda=1.5"),
        ({"share": "a"}, "distill.lmbda=a"),
        ({"temperature": -1}, "on_policy.temperature=-1"),
        ({"max_new_tokens": 0}, "on_policy.max_new_tokens=0"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        OnPolicy(**options)
