"""Notices on the terminal and, in a run, in its logs/run.log. Ranks after the first write to logs/rank<r>.log alone."""

import logging
import os
import sys
import warnings
from pathlib import Path

from mangakd.core import ranks


def start_logging(folder: Path | None) -> None:
    """folder: the run's, or None for commands that leave no run."""
    if folder is not None:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        if not ranks.is_first():
            _leave_the_terminal(folder / "logs" / f"rank{ranks.rank()}.log")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if folder is not None and ranks.is_first():
        handlers.append(logging.FileHandler(folder / "logs" / "run.log"))
    level = logging.INFO if folder is not None or ranks.is_first() else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=handlers, force=True)
    for name in ("lightning", "lightning.pytorch", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="Experiment logs directory")  # run.log is in it
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")  # a deprecation inside lightning


def _leave_the_terminal(file: Path) -> None:
    """One bar and one log: what this rank prints goes to its file; only its errors still reach the terminal."""
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.__stdout__.fileno())  # type: ignore[union-attr]
    warnings.simplefilter("ignore")  # the first rank shows the same ones
