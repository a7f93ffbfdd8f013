"""Which loss learns from which teacher of language models: the table in docs/how-to/stored_teachers.md is what a run allows.

What it allows is then computed from a real store, and what it refuses is refused before anything is read.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.test_losses import loss_classes
from tiny_language import TOKENS, VOCAB, Teachers, context, encoder

from mangakd.core.errors import UserError
from mangakd.core.requires import Fits
from mangakd.core.schedule import Linear
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.relation import RelationLoss
from mangakd.losses.token_divergence import NAMES
from mangakd.losses.tokens import TokensLoss
from mangakd.runs.checks.recipe import provided
from mangakd.teachers.cached import Cached
from mangakd.teachers.local import Local
from mangakd.teachers.options import TeacherOptions
from mangakd.training.stages import Stage

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "stored_teachers.md"
T, KIND = 2.0, "llama"  # of gemma2 no queries can be tapped
TEACHERS: dict[str, Callable[[], TeacherOptions]] = {
    "live": lambda: Local(path="lm"),
    **{
        kind: lambda kind=kind: Cached(path="lm", stored_as=kind, k=5, temperature=T)
        for kind in ("topk", "draws", "states")
    },
}
LOSSES: dict[str, Callable[[], LossCallback]] = {
    **{f"`tokens`, `{name}`": lambda name=name: TokensLoss(divergence=name, temperature=T) for name in NAMES},
    "`tokens`, another temperature than the store's": lambda: TokensLoss(temperature=T + 1),
    "`tokens`, `alpha=0`": lambda: TokensLoss(alpha=0.0, divergence="jsd"),
    "`hidden`": HiddenLoss,
    "`attention`": AttentionLoss,
    "`relation`": RelationLoss,
}
CASES = [(loss, teacher) for loss in LOSSES for teacher in TEACHERS]
STUDENT = encoder("qwen3", 1)
STUDENT.spec = type(STUDENT.spec)(**{**vars(STUDENT.spec), "vocabulary": "v"})


def table() -> dict[tuple[str, str], bool]:
    """(loss, teacher) → whether the page says yes."""
    text = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^\| (.+) \|$", text[text.index("| loss | live") :].split("\n\n")[0], re.MULTILINE)
    head, *rows = [line.split(" | ") for line in lines]
    return {(row[0], teacher): cell == "yes" for row in rows for teacher, cell in zip(head[1:], row[1:], strict=True)}


def bound(loss: LossCallback, teacher: Any) -> LossSet:
    losses = LossSet({"own": loss})
    losses.bind(STUDENT.spec, teacher)
    return losses


def check(loss: LossCallback, options: TeacherOptions, stage: str = "run") -> None:
    spec = Teachers(KIND)(Local(path="lm").models[0]).spec
    provided(options, [Stage("all", teacher=stage)], bound(loss, spec).callbacks, spec, STUDENT.spec)


def test_the_page_has_each_loss_and_teacher() -> None:
    assert set(table()) == set(CASES)
    of_tokens = {cls for cls in loss_classes() if not cls().fits.misfit(STUDENT.spec.head)}
    assert of_tokens == {type(make()) for make in LOSSES.values()}, "a loss for language models needs rows on the page"
    assert Fits(("tokens",)).misfit(TOKENS) == ""


@pytest.mark.parametrize(("name", "teacher"), CASES)
def test_a_run_allows_what_the_page_says(name: str, teacher: str, tmp_path: Path) -> None:
    loss, options = LOSSES[name](), TEACHERS[teacher]()
    if not table()[name, teacher]:
        with pytest.raises(UserError, match=r"own.*(teacher=local|stored_as=states|its states)"):
            check(loss, options)
        return
    check(loss, options)
    given = context(tmp_path, Teachers(KIND), rows=6)
    provider = options.provider(given)
    losses = bound(loss, provider.spec)
    provider.prepare(given.device, losses.requires.teacher)
    STUDENT.require(losses.requires.student)
    batch = given.splits["train"].collate([0, 3, 4])
    total = losses(STUDENT(batch["student"]), provider(batch), batch, 0.0).total
    assert total > 0 and total.isfinite()


@pytest.mark.parametrize("stored_as", ["topk", "draws"])
def test_a_schedule_of_temperatures_is_refused(stored_as: str) -> None:
    options = Cached(path="lm", stored_as=stored_as, k=5, temperature=4.0)
    with pytest.raises(UserError, match=r"own\.temperature is 1 and .* those of T = 4"):
        check(TokensLoss(temperature=Linear(start=4, end=1)), options)


def test_a_stage_that_reads_a_store_of_a_live_teacher_has_its_loss(tmp_path: Path) -> None:
    """Every divergence and temperature: the stage stores states."""
    check(TokensLoss(divergence="jsd", temperature=Linear(start=4, end=1)), Local(path="lm"), stage="stored")
    with pytest.raises(UserError, match="needs hidden of layers"):
        check(HiddenLoss(), Local(path="lm"), stage="stored")


def test_stored_states_give_the_live_loss(tmp_path: Path) -> None:
    given = context(tmp_path, Teachers(KIND), rows=6)
    batch, values = given.splits["train"].collate([0, 3, 4]), []
    for options in (Local(path="lm"), Cached(path="lm", stored_as="states", stored_dtype="float32")):
        provider = options.provider(given)
        losses = bound(TokensLoss(divergence="jsd", temperature=T), provider.spec)
        provider.prepare(given.device, losses.requires.teacher)
        STUDENT.require(losses.requires.student)
        values.append(losses(STUDENT(batch["student"]), provider(batch), batch, 0.0).total)
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)
    assert STUDENT.spec.head.outputs == VOCAB
