"""Notices on the terminal and, in a run, in its logs/run.log."""

import logging
import sys
import warnings
from pathlib import Path


def start_logging(folder: Path | None) -> None:
    """folder: the run's, or None for commands that leave no run."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if folder is not None:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "logs" / "run.log"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
    for name in ("lightning", "lightning.pytorch", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="Experiment logs directory")  # run.log is in it
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")  # a deprecation inside lightning
