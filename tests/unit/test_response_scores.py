"""Scores of language models: by hand in float64, whatever stands in padding, and as ratios of sums over rows."""

from typing import Any

import numpy as np
import pytest
import torch
from chat_samples import chat_tokenizer
from tiny_language import TOKENS, encoder, inputs, own_logits
from torch import Tensor

from mangakd.core.outputs import TARGETS, Batch
from mangakd.core.spec import Head
from mangakd.core.token_logits import Draws, FromStates, LmHead, TopK
from mangakd.data.chats import ChatOptions
from mangakd.data.rows import Rows
from mangakd.evaluation.statistics import BINS
from mangakd.models.encoder import Encoder
from mangakd.runs.texts import Tokeniser
from mangakd.tasks import token_sums
from mangakd.tasks.response.encode import encoded, shown
from mangakd.tasks.response.judge import ResponseJudge
from mangakd.tasks.response.task import Response

TASK = Response()


def batch(**options: Any) -> Batch:
    given = inputs(**options)
    return {"student": given, "teacher": given, "next": given["input_ids"][given[TARGETS]]}


def ask(own: Encoder, given: Batch, teacher: Encoder | None = None) -> dict[str, Tensor]:
    other = None if teacher is None else lambda each: teacher(each["teacher"])
    with torch.no_grad():
        return TASK.ask(lambda each: own(each["student"]), given, other)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "cohere"])
def test_sums_are_those_by_hand(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, of the logits that the models themselves give, token by token."""
    monkeypatch.setattr(token_sums, "chunk_size", lambda vocabulary: 3)
    own, teacher, given = encoder(kind).double(), encoder(kind, seed=1).double(), batch()
    sums, targets = ask(own, given, teacher), given["student"][TARGETS]
    with torch.no_grad():
        q, p = (own_logits(each.model, given["student"]).log_softmax(-1).numpy() for each in (own, teacher))
    owners, y = targets.nonzero()[:, 0].numpy(), given["next"].numpy()
    for row in range(len(targets)):
        at = np.flatnonzero(owners == row)
        expected = {
            "nll": -sum(q[i, y[i]] for i in at), "right": sum(q[i].argmax() == y[i] for i in at),
            "kl": sum((np.exp(p[i]) * (p[i] - q[i])).sum() for i in at),
            "agreement": sum(p[i].argmax() == q[i].argmax() for i in at),
        }  # fmt: skip
        assert {name: float(sums[name][row]) for name in expected} == pytest.approx(expected, rel=1e-12)
        gaps = np.zeros(BINS)
        for i in at:
            sure = np.exp(q[i].max())
            gaps[min(int(sure * BINS + 1e-5), BINS - 1)] += sure - (q[i].argmax() == y[i])
        np.testing.assert_allclose(sums["gaps"][row].numpy(), gaps, rtol=0, atol=1e-12)
    alone = ask(own, given)
    assert alone.keys() == {"nll", "right", "gaps"} and all(torch.equal(alone[name], sums[name]) for name in alone)


def test_padding_and_the_other_rows_change_nothing() -> None:
    own, teacher, whole = encoder("llama"), encoder("llama", seed=1), batch()
    expected = ask(own, whole, teacher)
    wide = ask(own, batch(width=29), teacher)
    lengths = whole["student"]["attention_mask"].sum(1).tolist()
    for name, values in expected.items():
        torch.testing.assert_close(wide[name], values, rtol=1e-6, atol=1e-6)
        for row, length in enumerate(lengths):
            part = {key: value[row : row + 1, :length] for key, value in whole["student"].items()}
            alone = ask(own, {"student": part, "teacher": part, "next": part["input_ids"][part[TARGETS]]}, teacher)
            torch.testing.assert_close(alone[name][0], values[row], rtol=1e-6, atol=1e-6)


def test_states_that_predict_no_target_are_never_read() -> None:
    own, given = encoder("llama"), batch()
    expected, loss = ask(own, given), TASK.own_loss()
    loss.bind(own.spec, None)
    total = loss(own(given["student"]), None, given).sum
    read = torch.zeros_like(given["student"][TARGETS])
    read[:, :-1] = given["student"][TARGETS][:, 1:]

    def poison(module: Any, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.masked_fill(~read[..., None], float("nan"))
        return output

    own._bodies[0].register_forward_hook(poison)
    poisoned = loss(own(given["student"]), None, given).sum
    assert torch.equal(poisoned, total)
    poisoned.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in own.parameters())
    assert all(torch.equal(values, expected[name]) for name, values in ask(own, given).items())


def test_the_first_and_the_last_token_of_an_answer_count(tmp_path: Any) -> None:
    reader = chat_tokenizer("marked")
    rows = Rows({"prompt": ["where is it?"], "answer": ["no"]})
    split = encoded(rows, Tokeniser(reader, reader, 64, tmp_path), ChatOptions())
    given = split.collate([0])
    own = encoder("llama", vocab_size=len(reader))
    ids = given["student"]["input_ids"][0].tolist()
    text = reader.decode(ids)
    assert text.endswith("assistant\nno<|im_end|>") and reader.decode(given["next"]) == "no<|im_end|>"
    with torch.no_grad():
        log_q = own.model(input_ids=given["student"]["input_ids"]).logits[0].log_softmax(-1)
    count = len(given["next"])
    each = [-float(log_q[i - 1, ids[i]]) for i in range(len(ids) - count, len(ids))]
    assert split.columns["tokens"].tolist() == [count] and count > 1 and min(each[0], each[-1]) > 1e-3
    assert float(ask(own, given)["nll"]) == pytest.approx(sum(each), rel=1e-5)


def test_what_a_store_holds_of_a_teacher_is_compared() -> None:
    own, teacher, given = encoder("llama"), encoder("llama", seed=1), batch()
    live, targets = ask(own, given, teacher), given["student"][TARGETS]
    with torch.no_grad():
        student, answer = own(given["student"]).tokens, teacher(given["teacher"]).tokens
        log_p = answer.head.logits(answer.states).log_softmax(-1)

    def stored(answer: Any) -> dict[str, Tensor]:
        return token_sums.row_sums(student, given["next"], targets.nonzero()[:, 0], len(targets), answer)

    best, none = log_p.topk(8), torch.full((len(log_p),), -torch.inf)
    whole = stored(TopK(torch.arange(log_p.shape[1]).expand_as(log_p), log_p, none))
    torch.testing.assert_close(whole["bucket_kl"], live["kl"], rtol=1e-4, atol=1e-4)
    some = stored(TopK(best.indices, best.values, torch.log1p(-best.values.exp().sum(-1))))
    assert (some["bucket_kl"] <= live["kl"] + 1e-4).all() and torch.equal(some["agreement"], live["agreement"])
    hot = stored(TopK(best.indices, best.values, none, temperature=2.0))
    assert "bucket_kl" not in hot and torch.equal(hot["agreement"], live["agreement"])
    assert stored(Draws(best.indices)).keys() == {"nll", "right", "gaps"}


def test_models_of_different_vocabularies_are_compared_on_the_common_tokens() -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(4, 6), torch.randn(9, 6)
    one, other = (FromStates(states, LmHead(weight[:size])) for size in (9, 7))
    sums = token_sums.row_sums(one, torch.tensor([0, 1, 8, 2]), torch.tensor([0, 0, 1, 1]), 2, other)
    torch.testing.assert_close(sums["kl"], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-6)


def test_scores_are_ratios_of_sums_over_the_rows_that_were_drawn() -> None:
    answers = {
        "nll": np.array([2.0, 30.0]),
        "right": np.array([3.0, 1.0]),
        "gaps": np.zeros((2, BINS)),
        "kl": np.array([1.0, 4.0]),
    }
    answers["gaps"][:, 3], answers["gaps"][:, 9] = [0.5, -1.0], [1.0, 1.0]
    statistics = ResponseJudge().statistics(TOKENS, answers, {"tokens": np.array([4, 10])})
    counts = np.array([[1, 1], [2, 0], [0, 2]])
    expected = {
        "nll": [32 / 14, 0.5, 3.0], "perplexity": np.exp([32 / 14, 0.5, 3.0]), "accuracy": [4 / 14, 0.75, 0.1],
        "ece": [2.5 / 14, 3 / 8, 4 / 20], "kl": [5 / 14, 0.25, 0.4],
    }  # fmt: skip
    assert statistics.keys() == expected.keys()
    for name, statistic in statistics.items():
        np.testing.assert_allclose(
            statistic.resample(counts, counts @ statistic.features), expected[name], err_msg=name
        )
        assert statistic.value == pytest.approx(expected[name][0])
    assert ResponseJudge().chance(Head("tokens", 8), {}) == {"nll": pytest.approx(np.log(8))}


def test_the_report_shows_the_last_question_or_the_text() -> None:
    talk = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert shown(Rows({"messages": [talk, (), ()], "prompt": ["", "q", ""], "text": ["", "", "t"]})) == ["c", "q", "t"]
