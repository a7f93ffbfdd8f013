"""Checkpoints: whole or known not to be, the newest whole one, what they belong to, and optimizer states by name."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mangakd.core.errors import UserError
from mangakd.data.sampler import BucketSampler, Share
from mangakd.data.steps import RowSteps, TokenSteps
from mangakd.training.checkpoints import (
    KEY,
    LAST,
    PREVIOUS,
    AtomicIO,
    Identity,
    check_same,
    damage,
    name_states,
    newest,
    read,
    resume_step,
)  # fmt: skip
from mangakd.training.hardware import Hardware

LENGTHS = np.array([3, 5, 8, 13, 13, 13, 13, 13, 13, 20] * 4)


def content(step: int) -> dict[str, object]:
    return {"global_step": step, "weights": torch.full((5000,), float(step)), KEY: {"world": 1}}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    for step in (1, 2):
        AtomicIO().save_checkpoint(content(step), tmp_path / LAST)
    return tmp_path


def step_of(file: Path | None) -> int:
    assert file is not None
    return int(torch.load(file, weights_only=False)["global_step"])


def truncate(file: Path, share: float = 0.6) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def flip(file: Path) -> None:
    """One byte in the middle of the weights."""
    data = bytearray(file.read_bytes())
    data[data.index(torch.tensor(2.0).numpy().tobytes()) + 4000] ^= 1
    file.write_bytes(bytes(data))


def test_the_one_before_the_last_is_kept(two: Path) -> None:
    assert {file.name for file in two.iterdir()} == {LAST, PREVIOUS}
    assert step_of(newest(two)) == 2 and step_of(two / PREVIOUS) == 1


@pytest.mark.parametrize(
    "spoil", [truncate, flip, lambda file: file.write_bytes(b""), lambda file: truncate(file, 0.999)]
)
def test_a_damaged_checkpoint_is_passed_over_and_told(spoil, two: Path, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    spoil(two / LAST)
    assert damage(two / LAST) and not damage(two / PREVIOUS)
    with caplog.at_level(logging.WARNING):
        assert step_of(newest(two)) == 1
    assert f"{two / LAST} is damaged" in caplog.text and "the previous checkpoint" in caplog.text
    with pytest.raises(UserError, match=rf"is damaged.*Whole checkpoints in the folder: .*{PREVIOUS}"):
        read(two / LAST)


def test_a_kill_between_the_two_renames_leaves_the_one_before(two: Path) -> None:
    (two / LAST).replace(two / PREVIOUS)
    assert step_of(newest(two)) == 2


def test_all_damaged_is_an_error_and_none_is_a_new_start(two: Path, tmp_path: Path) -> None:
    truncate(two / LAST)
    truncate(two / PREVIOUS)
    with pytest.raises(UserError, match="no whole checkpoint is left"):
        newest(two)
    assert newest(tmp_path / "nothing") is None


def test_a_write_that_fails_keeps_what_was_there(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: object, handle: object) -> None:
        handle.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nno space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        UserError, match=r"could not be written: PytorchStreamWriter.*The previous checkpoint is intact"
    ):
        AtomicIO().save_checkpoint(content(3), two / LAST)
    assert {file.name for file in two.iterdir()} == {LAST, PREVIOUS} and step_of(newest(two)) == 2


def test_best_weights_are_nothing_to_resume_from(tmp_path: Path) -> None:
    AtomicIO().save_checkpoint({"state_dict": {}}, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match=r"not a checkpoint to resume from \(best.ckpt"):
        read(tmp_path / "best.ckpt")


IDENTITY = Identity("t1", "d1", ("a", "b"), "student", {"optim.lr": 0.1, "seed": 0})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": "t2"}, "the teacher changed, from t1 to t2"),
        ({"data": "d2"}, "the data changed, from d1 to d2"),
        ({"labels": ["b", "a"]}, "the label set changed, from a, b to b, a"),
        ({"stage": "baseline"}, "the stage changed"),
    ],
)
def test_other_inputs_are_refused_by_name(change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_same(Path("x.ckpt"), vars(IDENTITY), replace(IDENTITY, **change))  # type: ignore[arg-type]


def test_other_settings_are_told(caplog: pytest.LogCaptureFixture) -> None:
    check_same(Path("x.ckpt"), vars(IDENTITY), replace(IDENTITY, labels=["a", "b"]))
    assert not caplog.text
    check_same(Path("x.ckpt"), vars(IDENTITY), replace(IDENTITY, settings={"optim.lr": 0.2, "seed": 0, "new": 1}))
    assert "optim.lr 0.1 → 0.2; new None → 1" in caplog.text


@pytest.mark.parametrize(
    ("hardware", "accumulate"),
    [
        (Hardware(batch_size=64), 1),
        (Hardware(batch_size=16), 4),
        (Hardware(batch_size=128), 1),
        (Hardware(batch_size=8, devices=3), 3),
        (Hardware(batch_size=32, accumulate=2), 2),
    ],
)
def test_a_resumed_step_keeps_its_rows(hardware: Hardware, accumulate: int, caplog: pytest.LogCaptureFixture) -> None:
    found = {"step_rows": 64, "world": 1, "accumulate": 1}
    assert resume_step(Path("x.ckpt"), found, hardware, LENGTHS) == (RowSteps(64), accumulate)
    assert ("not be equal bit for bit" in caplog.text) == (accumulate > 1 or hardware.world > 1)


@pytest.mark.parametrize(
    ("hardware", "accumulate"),
    [
        (Hardware(tokens_per_batch=40, accumulate=4), 4),
        (Hardware(tokens_per_batch=40, accumulate=2, devices=2), 2),
        (Hardware(tokens_per_batch=40, accumulate=9), 4),
        (Hardware(tokens_per_batch=40, devices=3), 2),
        (Hardware(tokens_per_batch=20), 12),  # of 13 tokens, 3 rows fit into 40 and 1 into 20
        (Hardware(tokens_per_batch=80), 2),
    ],
)
def test_a_resumed_step_keeps_its_tokens(hardware: Hardware, accumulate: int) -> None:
    """4 batches of 40 tokens, shared in another way: no micro-batch holds more than the new budget."""
    found = {"step_tokens": 40, "step_batches": 4, "world": 1, "accumulate": 4}
    step, parts = resume_step(Path("x.ckpt"), found, hardware, LENGTHS)
    assert (step, parts) == (TokenSteps(40, 4), accumulate)
    for rank in range(hardware.world):
        for micro in BucketSampler(LENGTHS, step, 0, {}, Share(rank, hardware.world, parts)):
            assert len(micro.rows) * LENGTHS[micro.rows].max() <= hardware.tokens_per_batch  # type: ignore[operator]


@pytest.mark.parametrize(
    ("record", "hardware", "words"),
    [
        (
            {"step_rows": 64},
            Hardware(tokens_per_batch=40),
            "steps of 64 rows, .* steps of a batch of at most 40 tokens.*=null",
        ),
        (
            {"step_tokens": 4096, "step_batches": 2},
            Hardware(),
            r"2 batches of at most 4,096 tokens, .* 64 rows.*hardware\.tokens_per_batch=4096",
        ),
    ],
)
def test_steps_of_rows_do_not_go_on_as_steps_of_tokens(record: dict[str, int], hardware: Hardware, words: str) -> None:
    with pytest.raises(UserError, match=words):
        resume_step(Path("x.ckpt"), record, hardware, LENGTHS)


def test_states_are_named_by_either_numbering() -> None:
    """Lightning numbers by group without shards, by module with them; the names must be those of the same parameters."""
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    groups = [
        {"params": [p for p in module.parameters() if p.dim() > 1]},
        {"params": [p for p in module.parameters() if p.dim() <= 1]},
    ]
    optimizer = torch.optim.AdamW(groups)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    expected = {name: optimizer.state[p]["exp_avg"] for name, p in module.named_parameters()}
    by_group = optimizer.state_dict()
    order = [name for name, _ in module.named_parameters()]
    numbers = {name: i for i, name in enumerate(order)}
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    by_module = {
        "state": {numbers[names[i]]: state for i, state in by_group["state"].items()},
        "param_groups": [{"params": [0]}, {"params": [1, 2, 3]}],
    }
    for state, sharded in ((by_group, False), (by_module, True)):
        name_states(state, module, groups, sharded)
        assert {name: each["exp_avg"].tolist() for name, each in state["state"].items()} == {
            name: value.tolist() for name, value in expected.items()
        }
        assert [group["params"] for group in state["param_groups"]] == [["0.weight"], ["0.bias", "1.weight", "1.bias"]]
    again = torch.optim.AdamW([{"params": list(group["params"])} for group in groups])
    again.load_state_dict(by_group)
    assert all(torch.equal(again.state[p]["exp_avg"], expected[name]) for name, p in module.named_parameters())
