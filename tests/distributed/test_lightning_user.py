"""The Lightning user's door with two DDP processes, which Lightning starts."""

from pathlib import Path

import pytest
import torch
from conftest import REPO
from transformers import AutoModelForSequenceClassification
from warm import Command

Trained = tuple[Path, dict[str, dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def states(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """`<devices>_<rank>` → what was trained there. Lightning starts the second process as a new interpreter."""
    folder = tmp_path_factory.mktemp("door")
    for devices in ("1", "2"):
        done = command("tests/distributed/lightning_user.py", devices, folder, PYTHONPATH=str(REPO))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder, {file.stem: torch.load(file) for file in folder.glob("*.pt")}


def test_ranks_end_with_one_student_and_one_projection(
    states: Trained,
) -> None:
    _, trained = states
    assert any("projections" in name for name in trained["2_0"])
    assert all(torch.equal(value, trained["2_1"][name]) for name, value in trained["2_0"].items())


def test_two_processes_take_the_steps_of_one(states: Trained) -> None:
    _, trained = states
    for name, value in trained["1_0"].items():
        assert torch.allclose(value, trained["2_0"][name], atol=1e-5), name


def test_the_saved_student_is_the_trained_one(states: Trained) -> None:
    folder, trained = states
    saved = AutoModelForSequenceClassification.from_pretrained(folder / "student").state_dict()
    assert all(torch.equal(value, trained["2_0"][f"student.model.{name}"]) for name, value in saved.items())
