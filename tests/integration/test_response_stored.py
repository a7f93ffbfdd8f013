"""`task=response` beside a stored teacher: what the tables have, a stopped run, and what is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import checked
from omegaconf import DictConfig
from warm import Command

from mangakd.core.errors import UserError
from mangakd.runs.plan import store

Compose = Callable[..., DictConfig]
STORED = ["teacher=cached", "data.max_length=256", "teacher.k=8", "teacher.draws=20", "logger=[]", "baseline=false"]


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_scores_beside_each_kind_of_store(
    response_run: list[str],
    compose: Compose,
    run_here: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The teacher's own scores are exact for each kind; the KL is exact, a lower bound, or left out with a warning."""
    folders = {}
    for kind in ("live", "topk", "draws", "states"):
        own = ["data.max_length=256"] if kind == "live" else [*STORED, f"teacher.stored_as={kind}"]
        folders[kind] = tmp_path / kind
        with caplog.at_level(logging.WARNING):
            run_here(compose(*response_run, "logger=[]", "baseline=false", "trainer.max_epochs=1", *own), folders[kind])
    live, topk, draws, states = (scores(folder) for folder in folders.values())
    for other in (topk, draws, states):
        for name in ("perplexity", "nll", "accuracy", "ece"):
            assert other[f"teacher/test/{name}"] == pytest.approx(live[f"teacher/test/{name}"], rel=1e-3)
        assert "test/agreement" in other
    assert states["test/kl"] == pytest.approx(live["test/kl"], rel=1e-2)
    assert "test/kl" not in topk and 0 < topk["test/bucket_kl"] < states["test/kl"] * 1.02
    assert not {"test/kl", "test/bucket_kl"} & draws.keys()
    assert "scores will have no KL to the teacher: its store holds draws at T = 1" in caplog.text
    assert "the store holds 8 tokens of each answer, and all others have" in caplog.text
    assert "KL(teacher ‖ student) a token, at least" in (folders["topk"] / "report.md").read_text()


def test_a_stopped_run_with_a_store_ends_with_the_same_bits(
    response_run: list[str],
    ends_alike: Callable[..., None],
    compose: Compose,
    run_here: Callable[..., None],
    tmp_path: Path,
) -> None:
    own = [*response_run, *STORED, "checkpoint.every_steps=1"]
    ends_alike(*own)
    with pytest.raises(UserError, match="the teacher"):
        run_here(compose(*own, "teacher.k=9", "resume=auto", "trainer.max_epochs=3"), tmp_path / "cut")


def test_the_command_fills_and_verifies(response_run: list[str], command: Command, tmp_path: Path) -> None:
    words = [*response_run, "data.max_length=256", "teacher=cached", "teacher.k=8", f"paths.cache={tmp_path / 'cache'}"]
    filled = command("scripts/cache_teacher.py", *words)
    assert filled.returncode == 0, filled.stderr
    assert "84 of 84 examples written, 46 bytes a target token" in filled.stdout
    verified = command("scripts/cache_teacher.py", *words, "verify=true")
    assert "max |Δp| = " in verified.stdout, verified.stderr


def test_a_plan_says_how_large_the_store_will_be(response_run: list[str], compose: Compose, tmp_path: Path) -> None:
    run = checked(compose(*response_run, *STORED), tmp_path / "run")
    splits = run.material.splits.values()
    counts = {
        key: n for each in splits for key, n in zip(each.teacher.keys.tolist(), each.units["targets"], strict=True)
    }
    tokens = sum(counts.values())
    size = tokens * 46 + len(counts) * 12
    assert (
        store(run)[-1]
        == f"the store of the teacher's answers takes {tokens:,} target tokens × 46 bytes, with an index {size / 1000:.1f} kB"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["losses.tokens.divergence=jsd", "teacher.stored_as=draws"], r"divergence=jsd cannot be estimated from tokens drawn"),
        (["losses.tokens.temperature=2"], r"temperature is 2 and the teacher's probabilities are those of T = 1"),
        (["losses=[tokens,hidden]"], r"losses\.hidden needs hidden of layers .* but teacher=cached gives answers only"),
        (["teacher.k=100000"], r"teacher\.k=100000 must be less than the \d+ tokens"),
        (["teacher.stored_as=logits"], r"teacher\.stored_as=logits; known: topk, draws, states"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_training(
    change: list[str], words: str, response_run: list[str], compose: Compose, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        checked(compose(*response_run, *STORED, *change), tmp_path / "run")


def test_kinds_for_tokens_are_refused_for_classifiers(base: list[str], compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.stored_as=topk is for language models"):
        checked(compose(*base, "teacher=cached", "teacher.stored_as=topk"), tmp_path / "run")
