"""`resume=auto` of a whole run: what it refuses by name, what it says, and that a damaged last checkpoint costs one interval."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import LABELS, save_tiny
from omegaconf import DictConfig

from mangakd.core.errors import UserError

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]


@pytest.fixture
def typed(small_run: list[str]) -> list[str]:
    return [*small_run, "trainer.max_epochs=3", "checkpoint.every_steps=4"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def test_a_changed_teacher_data_or_label_set_is_refused(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, tiny_csv: Path
) -> None:
    run_here(compose(*typed), tmp_path / "run")
    other = save_tiny(tmp_path / "other", labels=LABELS, hidden_size=32, intermediate_size=48)
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(tiny_csv.read_text().replace(",refund", ",return"))
    relabelled = save_tiny(tmp_path / "relabelled", labels=("order", "return", "shipping"))
    changed = {
        "the teacher changed": [f"teacher.path={other}"],
        "the data changed": ["data.train_limit=40"],
        "the label set changed, from order, refund, shipping to order, return, shipping": [
            f"data.path={renamed}", f"teacher.path={relabelled}",
        ],
    }  # fmt: skip
    for words, overrides in changed.items():
        with pytest.raises(UserError, match=words):
            run_here(compose(*typed, *overrides, "resume=auto"), tmp_path / "run")


def test_changed_settings_are_told(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_here(compose(*typed), tmp_path / "run")
    with caplog.at_level(logging.WARNING, "mangakd"):
        run_here(compose(*typed, "trainer.max_epochs=4", "optim.lr=1e-3", "resume=auto"), tmp_path / "run")
    told = " ".join(caplog.messages)
    assert "optim.lr 0.0003 → 0.001" in told and "trainer.max_epochs 3 → 4" in told


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_here(compose(*typed), tmp_path / "run")
    whole = weights(tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with caplog.at_level(logging.WARNING, "mangakd"):
        run_here(compose(*typed, "resume=auto"), tmp_path / "run")
    again = weights(tmp_path / "run")
    assert any(
        f"{last} is damaged" in text and "resuming from the previous checkpoint" in text for text in caplog.messages
    )
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_another_batch_on_the_device_keeps_the_step(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_here(compose(*typed, "trainer.max_epochs=2"), tmp_path / "run")
    with caplog.at_level(logging.WARNING, "mangakd"):
        run_here(compose(*typed, "hardware.batch_size=4", "resume=auto"), tmp_path / "run")
    assert any("resumes with 1 × 2: the same steps of 8 rows" in message for message in caplog.messages)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    assert saved["global_step"] == 18 and saved["mangakd"]["step_rows"] == 8


def test_settings_that_would_fine_tune_another_teacher_are_refused_before_it_is(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, tiny_fresh: Path
) -> None:
    typed = [*typed, f"teacher.path={tiny_fresh}", "teacher.fit.epochs=1", "trainer.max_epochs=1"]
    run_here(compose(*typed), tmp_path / "run")
    changed = {
        "hardware makes steps of 4 rows, which were 8 rows": ["hardware.batch_size=4"],
        r"teacher\.fit\.epochs is 2, which was 1": ["teacher.fit.epochs=2"],
        "the data changed": ["data.train_limit=40"],
    }
    for words, overrides in changed.items():
        with pytest.raises(UserError, match=words):
            run_here(compose(*typed, *overrides, "resume=auto"), tmp_path / "run")
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 1
    run_here(compose(*typed, "resume=auto"), tmp_path / "run")
