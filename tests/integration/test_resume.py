"""`resume=auto` of a whole run: what it refuses by name, what it says, and that a damaged last checkpoint costs one interval."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import LABELS, save_tiny
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import preflight, train
from mangakd.cli.setup import Setup
from mangakd.core.errors import UserError

Compose = Callable[..., DictConfig]


@pytest.fixture
def base(tiny_teacher: Path, tiny_csv: Path) -> list[str]:
    return [
        "data=files", f"data.path={tiny_csv}", f"teacher.path={tiny_teacher}", "student.layers=[1,3]", "hardware=cpu",
        "hardware.batch_size=8", "trainer.max_epochs=3", "checkpoint.every_steps=4", "logger=[]",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher with random weights is near chance, which a run refuses; and logging stays pytest's."""
    monkeypatch.setattr(train, "start_logging", lambda folder: folder and folder.mkdir(exist_ok=True))
    monkeypatch.setattr(train, "teacher_scores", lambda setup, answers: {})


def run(config: DictConfig, folder: Path) -> dict[str, torch.Tensor]:
    own = OmegaConf.masked_copy(
        config, [str(key) for key in config if key != "hydra"]
    )  # as a job of hydra.main gets it
    setup = Setup(own, folder)
    preflight.check(setup)
    train.distillation(setup)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def test_a_changed_teacher_data_or_label_set_is_refused(
    base: list[str], compose: Compose, tmp_path: Path, tiny_csv: Path
) -> None:
    run(compose(*base), tmp_path / "run")
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
            run(compose(*base, *overrides, "resume=auto"), tmp_path / "run")


def test_changed_settings_are_told(
    base: list[str], compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(compose(*base), tmp_path / "run")
    with caplog.at_level(logging.WARNING, "mangakd"):
        run(compose(*base, "trainer.max_epochs=4", "optim.lr=1e-3", "resume=auto"), tmp_path / "run")
    told = " ".join(caplog.messages)
    assert "optim.lr 0.0003 → 0.001" in told and "trainer.max_epochs 3 → 4" in told


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    base: list[str], compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(compose(*base), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with caplog.at_level(logging.WARNING, "mangakd"):
        again = run(compose(*base, "resume=auto"), tmp_path / "run")
    assert any(f"{last} is damaged" in message and "the one before it" in message for message in caplog.messages)
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_another_batch_on_the_device_keeps_the_step(
    base: list[str], compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(compose(*base, "trainer.max_epochs=2"), tmp_path / "run")
    with caplog.at_level(logging.WARNING, "mangakd"):
        run(compose(*base, "hardware.batch_size=4", "resume=auto"), tmp_path / "run")
    assert any("goes on with 1 × 2: the same 8 rows a step" in message for message in caplog.messages)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    assert saved["global_step"] == 18 and saved["mangakd"]["step_rows"] == 8
