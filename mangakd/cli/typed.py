"""What was typed for a run, as a command that can be typed again."""

import shlex
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from mangakd.core.run_folder import COMMAND

ELSEWHERE = ("resume=", "sweep=")  # where the run goes on, and what else is run


def command() -> list[str]:
    words = HydraConfig.get().overrides.task
    return ["python", "train.py", *(word for word in words if not word.startswith(ELSEWHERE))]


def keep(folder: Path) -> None:
    """In the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMAND).write_text(shlex.join(command()) + "\n")
