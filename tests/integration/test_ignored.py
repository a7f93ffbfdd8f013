"""Settings that were given and that nothing in the run reads: each is named, with the reason."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from mangakd.cli import preflight
from mangakd.cli.given import run_of
from mangakd.core import cpu
from mangakd.runs.checks import machine

Compose = Callable[..., DictConfig]


WARNED: dict[str, tuple[list[str], str]] = {
    "knob": (["distill.beta=3"], "distill.beta is set, but no chosen loss reads it (losses: hard_label, output)"),
    "knob of the run itself": (["task=response", "distill.lmbda=0.5"], ""),
    "knob of a loss that is there": (["distill.alpha=0.5"], ""),
    "data": (["data=manga_intent"], "is ignored: the data source MangaIntent does not read it"),
    "pinning": (["hardware.pin_memory=true"], "hardware.pin_memory is ignored: page-locked batches are for GPUs"),
    "figures": (
        ["hardware.machine.memory_gb=9"],
        "hardware.machine.memory_gb is ignored: its figures are for plan=true",
    ),
    "batch of a kind of head": (
        ["hardware.batch_size=8", "hardware.tasks.labels.batch_size=9"],
        "hardware.tasks.labels.batch_size is ignored: hardware.batch_size=8 wins.",
    ),
    "batch that a template sets": (
        ["experiment=rerank_quickstart", "hardware.tasks.score.batch_size=9"],
        "hardware.tasks.score.batch_size is ignored: hardware.batch_size=8 wins.",
    ),
    "batch of rows beside one of tokens": (
        ["hardware.batch_size=8", "hardware.tokens_per_batch=4096"],
        "hardware.batch_size is ignored: hardware.tokens_per_batch=4096 wins.",
    ),
    "batch of a kind of head beside one of tokens": (
        ["hardware.tasks.labels.batch_size=9", "hardware.tokens_per_batch=4096"],
        "hardware.tasks.labels.batch_size is ignored: hardware.tokens_per_batch=4096 wins.",
    ),
    "batch of tokens alone": (["hardware.tokens_per_batch=4096"], ""),
    "batch of a kind of head alone": (["hardware.tasks.labels.batch_size=9"], ""),
    "placement": (
        ["teacher=cached", "hardware.teacher.placement=sharded"],
        "hardware.teacher.placement is ignored: teacher=cached keeps none in memory",
    ),
    "part of a store of tokens": (
        ["teacher=cached", "teacher.k=32"],
        "teacher.k is ignored: it is for language models, and the head is of labels",
    ),
    "part of another kind of store": (
        ["task=response", "teacher=cached", "teacher.stored_as=states", "teacher.k=32"],
        "teacher.k is ignored: it is for stored_as=topk, and the store holds states",
    ),
    "part of this kind of store": (["task=response", "teacher=cached", "teacher.k=32"], ""),
    "added key": (["+lr=3"], "+lr is read by nothing"),
    "added key of a section": (["++distill.note=3"], "+distill.note is read by nothing"),
    "++ for a key that is there": (["++seed=3"], ""),
    "sizes beside layers": (
        ["student=teacher_layers", "+student.sizes.hidden_size=8"],
        "student.sizes.hidden_size is ignored: student.layers=[",
    ),
    "student beside a path": (
        ["student=bert_mini", "student.path=there"],
        "student is ignored: student.path=there wins",
    ),
    "student beside layers": (
        ["student=bert_mini", "student.layers=[2,4]"],
        "student is ignored: student.layers=[2,4] wins",
    ),
}


@pytest.mark.parametrize("what", WARNED)
def test_ignored_settings_are_warned_about(
    what: str, base: list[str], compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides, expected = WARNED[what]
    with caplog.at_level(logging.WARNING):
        config = compose(*base, *overrides)
        preflight.warn_ignored(config)
        if what == "data":
            run_of(config, tmp_path / "run").parts.corpus  # noqa: B018
    told = " ".join(caplog.messages)
    assert expected in told if expected else not told


@pytest.mark.parametrize(
    "words", [["models=mangaassist", "student=bert_mini"], ["student=pretrained", "student.path=there"]]
)
def test_a_student_in_place_of_the_pairs_own_is_taken(
    words: list[str], compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        config = compose(*words)
        preflight.warn_ignored(config)
    assert not caplog.messages
    assert config.student.path in (None, "there") and config.student.layers is None


def test_a_knob_that_a_loss_reads_is_not_named_beside_one_that_none_reads(
    base: list[str], compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    knobs = ["distill.alpha=0.5", "distill.beta=3", "distill.gamma=2", "distill.temperature=3"]
    with caplog.at_level(logging.WARNING):
        preflight.warn_ignored(compose(*base, *knobs))
    reason = "is set, but no chosen loss reads it (losses: hard_label, output)."
    assert caplog.messages == [f"distill.beta {reason}", f"distill.gamma {reason}"]


@pytest.mark.parametrize("units", [True, False])
def test_bf16_on_a_cpu_that_emulates_it_is_warned_about(
    units: bool, base: list[str], compose: Compose, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(cpu, "native_bf16", lambda: units)
    for precision in ("32-true", "bf16-mixed"):
        caplog.clear()
        parts = run_of(compose(*base, f"hardware.precision={precision}"), tmp_path / "run").parts
        machine.profile(parts.hardware, "cpu")
        told = "hardware.precision=bf16-mixed is emulated on this CPU" in " ".join(caplog.messages)
        assert told == (precision == "bf16-mixed" and not units)
