"""On-policy fits: two processes write and learn what one does, and a resumed fit goes on with the same bits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from own_texts import part, state, weights

from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.tokens import TokensLoss
from mangakd.training.hardware import Hardware

ONE = Hardware(accelerator="cpu", batch_size=8)
DDP = replace(ONE, devices=2, strategy="ddp", batch_size=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return weights(tmp_path_factory.mktemp("whole"), ONE, 0.6)


@pytest.mark.usefixtures("forked_ranks")
def test_two_processes_end_with_the_weights_of_one(whole: dict[str, Any], tmp_path: Path) -> None:
    for name, value in weights(tmp_path / "two", DDP, 0.6).items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=2e-6, msg=name)
    given = weights(tmp_path / "given", ONE, 0.0)
    assert any((given[name] - value).abs().max() > 1e-4 for name, value in whole.items())


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_resumed_fit_has_the_same_bits(
    step: int, whole: dict[str, Any], tmp_path: Path, stopped_at: Callable[..., None]
) -> None:
    stopped_at(step, lambda: part(tmp_path, ONE, 0.6))
    part(tmp_path, ONE, 0.6, tmp_path / "checkpoints" / "last.ckpt")
    ends = state(tmp_path)
    assert all(torch.equal(ends[name], value) for name, value in whole.items())


def test_hidden_states_of_own_texts(tmp_path: Path) -> None:
    part(tmp_path, ONE, 1.0, tokens=TokensLoss(), hidden=HiddenLoss())
