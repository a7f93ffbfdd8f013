"""What messages call the commands: as the process was started."""

import sys
from pathlib import Path

import pytest

from mangakd.core.invocation import CLONE, PACKAGE, command


@pytest.mark.parametrize(
    ("started", "train", "drift"),
    [
        ("/usr/bin/mangakd", "mangakd train", "mangakd check-drift"),
        (str(PACKAGE / "__main__.py"), "python -m mangakd train", "python -m mangakd check-drift"),
        ("train.py", "python train.py", "python scripts/check_drift.py"),
        ("scripts/report.py", "python train.py", "python scripts/check_drift.py"),
        (str(CLONE / "train.py"), f"python {CLONE}/train.py", f"python {CLONE}/scripts/check_drift.py"),
        ("elsewhere/train.py", "mangakd train", "mangakd check-drift"),
    ],
)
def test_as_it_was_started(started: str, train: str, drift: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CLONE)
    monkeypatch.setattr(sys, "argv", [started])
    assert (command("train"), command("check_drift")) == (train, drift)


def test_from_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CLONE / "conf")
    monkeypatch.setattr(sys, "argv", [str(Path("..") / "train.py")])
    assert command("report") == "python ../scripts/report.py"
