"""Stored answers of an encoder–decoder: states, the best tokens and drawn ones are those of the live teacher."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import context, logits
from tiny_seq2seq import AFTER, VOCAB, encoder

from mangakd.core.outputs import Outputs
from mangakd.core.requires import Need
from mangakd.core.token_logits import Draws, FromStates, TopK
from mangakd.losses.tokens import TokensLoss
from mangakd.models.encoder import Encoder
from mangakd.store.manifest import Manifest
from mangakd.teachers.cached import Cached
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import Member, TeacherContext

CPU = torch.device("cpu")


def given(cache: Path, kind: str) -> TeacherContext:
    def load(member: Member) -> Encoder:
        made = encoder(kind, member.seed)
        made.spec = replace(made.spec, vocabulary="v")
        return made

    return replace(context(cache, load), head=AFTER)


@pytest.mark.parametrize("kind", ["t5", "t5 untied", "bart", "marian"])
def test_each_kind_of_store_answers_as_the_live_teacher(kind: str, tmp_path: Path) -> None:
    stored: dict[str, Any] = {}
    where = given(tmp_path, kind)
    batch = where.splits["train"].collate([7, 2, 19])  # other neighbours than in the fill
    live = LocalTeacher(where.load(Member("lm", 0)), AFTER).prepare(CPU, Need(answer=True))(batch)
    for name, more in {"states": {}, "topk": {"k": 8}, "draws": {"draws": 500}}.items():
        options = Cached(path="lm", stored_as=name, store=str(tmp_path / name), stored_dtype="float32", **more)
        stored[name] = options.provider(where).prepare(CPU, Need(answer=True))(batch).tokens
        assert Manifest.load(tmp_path / name).head == replace(AFTER, outputs=VOCAB)
    states, topk, draws = stored.values()
    assert isinstance(states, FromStates) and isinstance(topk, TopK) and isinstance(draws, Draws)
    torch.testing.assert_close(states.head.logits(states.states), logits(live), rtol=1e-5, atol=1e-5)
    log_p = torch.log_softmax(logits(live), -1)
    best, ids = log_p.topk(8)
    assert torch.equal(topk.ids, ids)
    torch.testing.assert_close(topk.log_probs, best, rtol=0, atol=1e-5)
    counts = torch.zeros_like(log_p).scatter_add_(1, draws.ids, torch.ones(draws.ids.shape)) / 500
    assert float((counts - log_p.exp()).abs().max()) < 0.12  # 5 standard deviations
    _same_loss(kind, batch, live, Outputs(None, live.mask, tokens=states))


def _same_loss(kind: str, batch: Any, live: Outputs, stored: Outputs) -> None:
    student = encoder(kind, 5)
    loss = TokensLoss(alpha=0.7)
    loss.bind(student.spec, student.spec)
    values = [float(loss(student(batch["student"]), answer, batch).sum.detach()) for answer in (live, stored)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
