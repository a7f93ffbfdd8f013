"""A whole run whose temperature is found from the teacher's validation answers, and the same bits after a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

OPTIONS = ("losses.output.entropy=0.9", "checkpoint.every_steps=2")
SCHEDULE = "{_target_: mangakd.core.schedule.Linear, start: 8, end: 2}"


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def test_a_killed_run_ends_with_the_same_temperature_and_weights(
    small_run: list[str], run_here: Callable[[DictConfig, Path], None], compose: Callable[..., DictConfig],
    tmp_path: Path, stopped_at: Callable[..., None],
) -> None:  # fmt: skip
    typed = [*small_run, *OPTIONS, "trainer.max_epochs=2"]
    run_here(compose(*typed), tmp_path / "whole")
    stopped_at(5, lambda: run_here(compose(*typed), tmp_path / "killed"))
    run_here(compose(*typed, "resume=auto"), tmp_path / "killed")
    whole, killed = last(tmp_path / "whole"), last(tmp_path / "killed")
    assert whole.keys() == killed.keys() and all(torch.equal(killed[name], value) for name, value in whole.items())

    # The teacher's own validation answers, as the report reads them, have the entropy that was asked for.
    said = np.load(tmp_path / "whole" / "predictions" / "validation.npz")["answers/teacher/logits"].astype(np.float64)
    p = np.exp(said / whole["losses.losses.output.softness.found"].item())
    p /= p.sum(-1, keepdims=True)
    assert -(p * np.log(p)).sum(-1).mean() / np.log(p.shape[-1]) == pytest.approx(0.9, abs=1e-4)


def test_a_schedule_is_typed_on_the_command_line(
    small_run: list[str], run_here: Callable[[DictConfig, Path], None], compose: Callable[..., DictConfig], tmp_path: Path
) -> None:  # fmt: skip
    typed = [*small_run, f"losses.output.temperature={SCHEDULE}", "logger=[csv]", "trainer.max_epochs=1"]
    run_here(compose(*typed, "+trainer.log_every_n_steps=1"), tmp_path / "run")
    lines = (tmp_path / "run" / "logs" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/output/temperature")
    found = [float(value) for line in lines[1:] if (value := line.split(",")[column])]
    steps = len(found)
    assert steps > 3 and found == pytest.approx([8 - 6 * step / steps for step in range(steps)], rel=1e-5)
